# A host, from a bare namespace to a running sshd, which as process 1 also reaps orphans.
set -e
echo {name} > /proc/sys/kernel/hostname
mount -t sysfs sysfs /sys
mkdir -p /mnt/shared
mount --bind {shared} /mnt/shared
mount -t tmpfs tmpfs /tmp
mkdir -p {shared}
mount --move /mnt/shared {shared}
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
if [ -d "$HOME/.ssh" ]; then mount -t tmpfs tmpfs "$HOME/.ssh"; fi
mkdir -p /run/files
cat > /run/files/hosts <<END
127.0.0.1 localhost
{hosts}
END
cat > /run/files/ssh_config <<END
IdentityFile /mnt/key
StrictHostKeyChecking accept-new
UserKnownHostsFile /run/known_hosts
LogLevel ERROR
END
mount --bind /run/files/hosts /etc/hosts
mount --bind /run/files/ssh_config /etc/ssh/ssh_config
ip link set lo up
echo ready
read go
ip address add {address}/24 dev eth0
ip link set eth0 up
# Of an option given twice, sshd takes the first.
exec "$(command -v sshd)" -D -e -f /dev/null {extra} -p {port} -h /mnt/host -o UsePAM=no -o StrictModes=no \
    -o PidFile=none -o AuthorizedKeysFile=/mnt/authorized_keys -o PermitRootLogin=yes -o MaxStartups=200
