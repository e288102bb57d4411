#!/usr/bin/env bash
# run.sh [COMMAND...]: boots the kernels of Debian 12 and 13 in QEMU (emulated: no KVM needed) on this machine's own files, read-only, and
# runs COMMAND in this repository there, as root, with a cgroup v2 hierarchy alone; without COMMAND, tests/kernel. An older verifier refuses
# what a newer one takes, and fields move: only running there tells. The kernels are downloaded and unpacked into .cache, not installed.
#
#   KERNELS="6.1"   the series to boot ("6.1 6.12"): the newest cloud image of each that this system's package sources have
#   LIMIT=1800      seconds for COMMAND in one kernel; emulation is 10 to 30 times slower than the machine
#
# Writable in the guest, and gone with it: /tmp, /var/tmp, /run, /dev/shm. `make test-kernels` runs this after the set-up.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$(readlink -f "$0")")/../.."
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
kernels=${KERNELS:-6.1 6.12} limit=${LIMIT:-1800}
cache=$PWD/.cache/kernels
[ $# -gt 0 ] || set -- .venv/bin/python -m pytest -p no:cacheprovider -v -v tests/kernel

say() { echo "wonted: $*" >&2; }
fail() { say "$*"; exit 1; }
[ "$(id -u)" = 0 ] || fail "needs root"

# The program that shares files with the guest is a part of QEMU 7.2 (Debian 12) and a package of its own later.
tools() {
  local missing=()
  command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
  [ -e /usr/bin/busybox ] || missing+=(busybox-static)
  sharer >/dev/null || [ ${#missing[@]} -gt 0 ] || missing+=(virtiofsd)
  [ ${#missing[@]} -eq 0 ] || { say "installing ${missing[*]}"; apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
  sharer >/dev/null || apt-get install -y -qq --no-install-recommends virtiofsd >/dev/null || fail "no virtiofsd here"
}
sharer() {
  local file
  for file in /usr/lib/qemu/virtiofsd /usr/libexec/virtiofsd; do [ ! -x $file ] || { echo $file; return; }; done
  return 1
}

# Prints the release of the newest cloud kernel of a series, downloaded and unpacked, with its headers; nothing where there is none.
fetch() {
  local image release name
  image=$(apt-cache pkgnames "linux-image-$1." | { grep -E '[0-9]-cloud-amd64$' || true; } | sort -V | tail -n 1)
  [ -n "$image" ] || return 0
  release=${image#linux-image-}
  if [ ! -e "$cache/$release/complete" ]; then
    say "downloading Linux $release"
    rm -rf "${cache:?}/$release" "$cache/new"
    mkdir -p "$cache/new"
    for name in "$image" "linux-headers-$release" "linux-headers-${release%-cloud-amd64}-common"; do
      (cd "$cache/new" && apt-get download -qq -o APT::Sandbox::User=root "$name" >&2) || fail "cannot download $name"
      dpkg-deb -x "$cache/new/$name"_*.deb "$cache/$release"
    done
    rm -r "$cache/new"
    touch "$cache/$release/complete"
  fi
  echo "$release"
}

# An initial file system: busybox, the modules that the root file system needs where they are not built in, and what to do.
initramfs() {
  local release=$1 into=$2 name file place=10
  mkdir -p "$into"/{bin,modules,proc,sys,dev,root}
  cp /usr/bin/busybox "$into/bin/"
  for name in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci fuse virtiofs; do
    place=$((place + 1))
    file=$(find "$cache/$release/lib/modules" -name "$name.ko*" -print -quit)
    case $file in
      *.xz) xz -dc "$file" >"$into/modules/$place-$name" ;;
      *.ko) cp "$file" "$into/modules/$place-$name" ;;
    esac
  done
  cat >"$into/init" <<'END'
#!/bin/busybox sh
bb=/bin/busybox
for m in /modules/*; do [ ! -e "$m" ] || $bb insmod "$m"; done
$bb mount -t virtiofs -o ro host /root || exec $bb poweroff -f
$bb mount -t proc proc /root/proc
$bb mount -t sysfs sysfs /root/sys
$bb mount -t devtmpfs dev /root/dev
$bb mkdir -p /root/dev/pts /root/dev/shm
$bb mount -t devpts devpts /root/dev/pts
$bb mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
$bb mkdir /here
$bb mount --bind "/root$($bb cat /place)" /here
for d in dev/shm tmp var/tmp run lib/modules; do $bb mount -t tmpfs tmpfs /root/$d; done
$bb chmod 1777 /root/tmp /root/var/tmp
$bb mkdir -p "/root$($bb cat /place)"  # where it stands in a folder that is empty now
$bb mount --move /here "/root$($bb cat /place)"
$bb ifconfig lo 127.0.0.1 up
$bb cp /guest /root/run/guest
exec $bb switch_root /root /bin/bash /run/guest
END
  chmod 755 "$into/init"
  pwd >"$into/place"
  (cd "$into" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$into.gz"
}

# What the guest runs as its first process, with the kernel's own headers, as `make run` would install them there.
guest() {
  local release=$1 sources=$cache/$1/usr/src; shift
  printf 'command=('; printf '%q ' "$@"; printf ')\ncd %q\n' "$PWD"
  printf 'export HOME=/root TERM=dumb LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 WONTED_PROGRAMS=/tmp/programs\n'
  printf 'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n'
  printf 'mkdir /lib/modules/%s\n' "$release"
  printf 'ln -s %q /lib/modules/%s/build\n' "$sources/linux-headers-$release" "$release"
  printf 'ln -s %q /lib/modules/%s/source\n' "$sources/linux-headers-${release%-cloud-amd64}-common" "$release"
  cat <<END
for type in tracefs:/sys/kernel/tracing debugfs:/sys/kernel/debug bpf:/sys/fs/bpf; do mount -t \${type%%:*} \${type%%:*} \${type#*:}; done
echo "guest: Linux \$(uname -r)"
timeout --foreground -k 10 $limit "\${command[@]}" </dev/null
echo "guest ended: \$?"
sync; echo b >/proc/sysrq-trigger; sleep 60
END
}

boot() {
  local release=$1 work=$2; shift 2
  mkdir -p "$work/initramfs"
  guest "$release" "$@" >"$work/initramfs/guest"
  initramfs "$release" "$work/initramfs"
  mkdir "$work/files"
  # Read-only on this side too; in a mount name space of its own, so that nothing stays mounted.
  nice -n 10 unshare -m bash -c 'mount --rbind / "$1" && mount -o remount,bind,ro "$1" && exec "$2" --socket-path="$3" -o source="$1" -o sandbox=chroot -o cache=auto' \
    sharer "$work/files" "$(sharer)" "$work/socket" >"$work/sharer.log" 2>&1 &
  sharing=$!
  for _ in $(seq 100); do [ ! -S "$work/socket" ] || break; sleep 0.1; done
  # The guest ends in a reset, which ends QEMU.
  nice -n 10 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3G -nographic -no-reboot -nodefaults -serial stdio \
    -object memory-backend-memfd,id=memory,size=3G,share=on -numa node,memdev=memory \
    -chardev "socket,id=files,path=$work/socket" -device vhost-user-fs-pci,chardev=files,tag=host -device virtio-rng-pci \
    -kernel "$cache/$release/boot/vmlinuz-$release" -initrd "$work/initramfs.gz" \
    -append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all" </dev/null 2>&1 | stdbuf -oL tr -d '\r' | tee "$work/log"
  grep -q 'guest: ' "$work/log" || cat "$work/sharer.log"
  kill "$sharing" 2>/dev/null || true
  wait "$sharing" 2>/dev/null || true
  sharing=
}

tools
sharing=
work=$(mktemp -d)
trap 'rm -rf "$work"; [ -z "$sharing" ] || kill "$sharing" 2>/dev/null || true' EXIT
ran=0 failed=()
for series in $kernels; do
  release=$(fetch "$series")
  if [ -z "$release" ]; then
    say "no Linux $series in this system's package sources: not run there"
    continue
  fi
  say "booting Linux $release (nothing is shown for about ten seconds)"
  boot "$release" "$work/$series" "$@"
  grep -q '^guest ended: 0$' "$work/$series/log" || failed+=("$release")
  ran=$((ran + 1))
done
[ "$ran" -gt 0 ] || fail "no kernel to run"
[ ${#failed[@]} -eq 0 ] || fail "failed on ${failed[*]}"
