#!/bin/sh
# Becomes the systemd of a system of its own. Is run as the first process of new PID, mount, IPC, network, UTS and
# cgroup namespaces, by root:
#   boot.sh FOLDER LAYERS
#     FOLDER  an empty folder, for mounts that end with the namespace
#     LAYERS  the folders of which the system is made, the uppermost first, with colons between them
# The system keeps its changes in memory. It can't change this host: /sys and /proc/sys are read-only there, except
# fs.mqueue, which belongs to the IPC namespace.
set -eu
umask 022
folder=$1
layers=$2
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/changes" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=$layers,upperdir=$folder/changes,workdir=$folder/work" "$folder/root"
cd "$folder/root"

mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=0755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/mqueue dev/pts dev/shm
mount -t mqueue mqueue dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm

mount -t proc proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/fs/mqueue proc/sys/fs/mqueue
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
if [ -d /sys/fs/cgroup/systemd ]; then
    mount -t tmpfs -o mode=0755 tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
else
    mount -t cgroup2 cgroup2 sys/fs/cgroup
fi

mkdir old
pivot_root . old
umount -l /old
rmdir /old
# Like in any container, what reaches beyond the namespaces is out of reach: modules, ports and clocks of this host.
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set=-sys_module,-sys_rawio,-sys_time \
    /lib/systemd/systemd --system --log-target=journal
