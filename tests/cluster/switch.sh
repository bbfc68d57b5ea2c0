# The switch: a namespace with a bridge, in whose private mounts the keys are kept in memory.
set -e
mount -t tmpfs tmpfs /mnt
chmod 700 /mnt
ssh-keygen -q -t ed25519 -N '' -f /mnt/key
ssh-keygen -q -t ed25519 -N '' -f /mnt/stranger
ssh-keygen -q -t ed25519 -N '' -f /mnt/host
cp /mnt/key.pub /mnt/authorized_keys
ip link set lo up
ip link add bridge type bridge
ip link set bridge up
echo ready
exec sleep infinity
