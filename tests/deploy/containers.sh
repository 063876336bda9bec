#!/bin/sh
# Becomes the first process of a host for containers. Is run in new PID, mount and network namespaces, by root:
#   containers.sh FOLDER
#     FOLDER  an empty folder, for what the host keeps
# It sees the files of this host. What it changes in /etc, /run and /var, where an engine keeps all that it has, is in
# memory, and ends with it. Its only network is its own.
set -eu
folder=$1
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
for top in etc var; do
    mkdir "$folder/$top" "$folder/$top.work"
    mount -t overlay overlay -o "lowerdir=/$top,upperdir=$folder/$top,workdir=$folder/$top.work" "/$top"
done
# An overlay can't be the upper layer of another.
mkdir -p "$folder/containers" /var/lib/containers
mount --bind "$folder/containers" /var/lib/containers
# On some hosts it is a link to what is in /run.
cp --dereference /etc/resolv.conf "$folder/resolv.conf"
rm -f /etc/resolv.conf
cp "$folder/resolv.conf" /etc/resolv.conf
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t proc proc /proc
mount -t sysfs -o ro sysfs /sys
# The engine looks what kind it is, but makes no groups.
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
: > "$folder/ready"
# It takes the orphans, which every engine leaves behind.
sleep infinity &
wait
