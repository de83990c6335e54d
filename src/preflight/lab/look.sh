# Run in a machine: see gather.rs.
export LC_ALL=C
set -f
reaches() { busybox ping -q -c "$1" -W 1 -s "$2" "$3" >/dev/null 2>&1; }
ping() {
  small=yes large=yes
  reaches 1 "$2" "$1" || reaches 2 "$2" "$1" || { large=no; reaches 2 8 "$1" || small=no; }
  echo "ping $1 $small $large"
}
waits() {
  for word; do
    rest=${word#*:}
    case $word in
      ping:*) ping "${rest%:*}" "${rest##*:}" & ;;
      claim:*) arping -b -c 3 -w 1 -I "${rest%%:*}" "${rest#*:}" 2>/dev/null & ;;
    esac
  done
  wait
}
section() { name=$1; shift; echo "## $name"; "$@" 2>/dev/null || echo "## failed $name"; }
links() { set +f; for i in /sys/class/net/*; do read -r mac <"$i/address" && read -r mtu <"$i/mtu" && echo "${i##*/} $mac $mtu"; done; }
said() { while read -r line; do echo "$line"; done <"$1"; }
# Of what is mounted, from the disk itself: udev's links say what was there when this machine last wrote to it.
uuids() {
  devices=
  while read -r device rest; do
    case $device in /dev/*) devices="$devices $device" ;; esac
  done </proc/mounts
  blkid -p -s UUID $devices
  [ $? -le 2 ]
}
names() { getent ahostsv4 $names; [ $? -le 2 ]; }
files() { grep -H "" $files; [ $? -le 2 ]; }
looks() {
  names= files= units= folder= packages=
  for word; do
    rest=${word#*:}
    case $word in
      name:*) names="$names $rest" ;;
      file:*) files="$files $rest" ;;
      unit:*) units="$units $rest" ;;
      folder:*) folder=$rest ;;
      packages:*) packages=$rest ;;
    esac
  done
  section machine-id said /etc/machine-id
  section links links
  section addresses ip -o -4 addr show scope global
  section routes ip -4 route show table main
  section mounts said /proc/mounts
  section uuids uuids
  [ -z "$folder" ] || section space df -B1 --output=target,avail "$folder"
  [ -z "$names" ] || section names names
  [ -z "$files" ] || section files files
  [ -z "$packages" ] || section packages grep -e ^Package: -e ^Status: -e ^Version: "$packages"
  [ -z "$units" ] || section units systemctl show -p Id -p ActiveState -p WatchdogUSec $units
}
waits "$@" | { looks "$@"; echo "## pings"; cat; }
