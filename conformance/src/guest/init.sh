#!/usr/lib/busybox/busybox sh
# The first process of a guest: loads what talks to the host, then runs what the host sends, one command after the other.
# A command comes as `NUMBER BASE64`, and is answered with `NUMBER STATUS oBASE64 eBASE64`: its output and errors.
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/usr/lib/busybox
/usr/lib/busybox/busybox --install -s /usr/lib/busybox
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /run/netns /run/lock /dev/pts
modprobe -a virtio_pci virtio_console virtio_rng virtio_net
tries=0
# Its name begins with the device's number, which depends on what else there is.
until channel=$(ls /dev/vport*p1 2>/dev/null); do
    tries=$((tries + 1))
    if [ $tries -ge 500 ]; then
        echo "there is no channel to the host; modules: $(lsmod)"
        poweroff -f
    fi
    usleep 20000
done
exec 3<>$channel
echo "0 0 o$(base64 -w0 /proc/uptime) e" >&3
# Not busybox's own shell, which prefers busybox's `ip` to the real one.
# The end of the file means that the host's side is gone, and then the guest has no purpose.
while read -r number command <&3; do
    echo "$command" | base64 -d >/tmp/command
    dash /tmp/command </dev/null >/tmp/output 2>/tmp/errors 3>&-
    status=$?
    echo "$number $status o$(base64 -w0 /tmp/output) e$(base64 -w0 /tmp/errors)" >&3
done
echo "the host has closed the channel"
poweroff -f
