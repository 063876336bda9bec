#!/bin/sh
# Gets the kernel of the machine from Debian, and makes its initrd. Is run as root in the tree of the machine, online:
#   kernel.sh BOOT
#     BOOT  the folder with the file `init`; becomes that of `vmlinuz` and `initrd`
set -eu
boot=$1
work=$(mktemp -d)
cd "$work"
chmod 0755 "$work"
apt-get update -qq
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
apt-get download -qq "$package"
dpkg-deb --extract linux-image-*.deb kernel
version=${package#linux-image-}
mkdir -p /usr/lib/modules
cp -a "kernel/lib/modules/$version" /usr/lib/modules/
cp "kernel/boot/vmlinuz-$version" "$boot/vmlinuz"
depmod "$version"

mkdir -p initrd/bin initrd/modules initrd/proc initrd/dev initrd/image initrd/changes initrd/root
cp "$boot/init" initrd/init
chmod 0755 initrd/init
cp "$(command -v busybox)" initrd/bin/busybox
: > initrd/modules/order
for module in virtio_pci virtio_blk crc32c_generic ext4 overlay virtio_net virtio_rng xfs; do
    modprobe --set-version "$version" --show-depends "$module" | sed -n 's/^insmod \(\S*\).*/\1/p' > needed
    while read -r file; do
        name=$(basename "$file")
        test -e "initrd/modules/$name" || { cp "$file" initrd/modules/; echo "$name" >> initrd/modules/order; }
    done < needed
done
(cd initrd && find . | cpio --quiet --create --format=newc | gzip -1) > "$boot/initrd"
cd /
rm -r "$work"
rm -rf /var/lib/apt/lists/*
