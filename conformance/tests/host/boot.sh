#!/usr/bin/env bash
# Runs systemd as the first process of namespaces of its own, on a copy of this host's system that lasts as long.
# boot.sh DIR PROJECT PROGRAMS: DIR is for its use; PROJECT is seen at /srv and PROGRAMS at /mnt. DIR/pid tells the process.
set -euo pipefail
dir=$1 project=$2 programs=$3

if [ "${4:-}" != inside ]; then
    # A control group of its own, in whatever way this host has its own mounted.
    mkdir "$dir/groups"
    mount -t cgroup2 none "$dir/groups"
    group=$dir/groups/flannel-test-$$
    mkdir "$group"
    (
        echo "$BASHPID" > "$group/cgroup.procs"
        exec unshare --mount --pid --fork --kill-child --net --uts --ipc --cgroup "$0" "$dir" "$project" "$programs" inside
    ) || true
    find "$group" -depth -type d -exec rmdir {} \;
    exit
fi

# This is still the host's /proc, and so is the number.
read -r pid _ < /proc/self/stat
root=$dir/system/root
mkdir "$dir/system"
mount -t tmpfs system "$dir/system"
mkdir "$dir/system/"{changes,work,root}
mount -t overlay system -o "lowerdir=/,upperdir=$dir/system/changes,workdir=$dir/system/work" "$root"
mount -t proc proc "$root/proc"
# Of the kernel's parameters those of the network alone are not this host's.
for part in /proc/sys/*; do
    [ "$part" != /proc/sys/net ] || continue
    mount --bind "$root$part" "$root$part"
    mount -o remount,bind,ro "$root$part"
done
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs groups "$root/sys/fs/cgroup"
mount -t cgroup2 groups "$root/sys/fs/cgroup"
# No unit of this host is enabled there.
for empty in dev run tmp etc/systemd/system; do mount -t tmpfs empty "$root/$empty"; done
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s pts/ptmx "$root/dev/ptmx"
for unit in systemd-udevd systemd-udev-trigger systemd-sysctl systemd-binfmt; do ln -s /dev/null "$root/etc/systemd/system/$unit.service"; done
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' > "$root/etc/systemd/system/test.target"
mount --bind "$project" "$root/srv"
mount --bind "$programs" "$root/mnt"
echo "$pid" > "$dir/pid"
cd "$root"
mkdir -p .host
pivot_root . .host
umount --lazy .host
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=test.target
