#!/usr/bin/env bash
# setup.sh run|test|bench|live: installs what is missing to run Wonted (or its tests, benchmarks, live examination) on Debian 12 and later, or Ubuntu 24.04:
# Debian packages, kernel headers, mounts, and a virtual environment in .venv. One line per step that does something; none, and no network,
# when nothing is missing. Never replaces a container engine, kernel headers that fit, or a file outside .venv, .cache and /lib/modules/VERSION.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
for_what=${1:-run}
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin"
release=$(uname -r)
updated=

say() { echo "wonted: $*" >&2; }
fail() { code=$1; shift; say "$*"; exit "$code"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -E "$@"; fi; }
has() { command -v "$1" >/dev/null 2>&1; }
installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || fail 4 "x86-64 Linux only; this is $(uname -s) $(uname -m)"
[ "$(id -u)" = 0 ] || has sudo || fail 4 "needs root; run it as root, or install sudo"
[ -w . ] || fail 1 "$PWD cannot be written by $(id -un); clone it into a folder of your own, or use sudo"
mkdir -p .cache
exec 9>.cache/setup.lock
flock 9

# Runs apt-get quietly; when it fails, shows why and what to do.
apt() {
  has apt-get || fail 5 "this system has no apt-get; install by hand: $*"
  local log; log=$(mktemp)
  if ! as_root apt-get -qq -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 </dev/null; then
    tail -n 15 "$log" >&2; rm -f "$log"
    fail 5 "apt-get $1 failed (above); check the network and /etc/apt/sources.list*, then run this again"
  fi
  rm -f "$log"
}

update() { [ -n "$updated" ] || { say "reading the package lists"; apt update; updated=1; }; }

# Installs those of the named packages that are missing. Their daemons are not started: the tests start their own.
packages() {
  local missing=() policy=/usr/sbin/policy-rc.d package
  for package in "$@"; do installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  update
  say "installing ${missing[*]}"
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt install -y --no-install-recommends "${missing[@]}"
}

# bcc looks for headers at /lib/modules/VERSION/build and source. Another version's do, since our programs use no kernel struct.
headers() {
  local modules=/lib/modules/$release exact=linux-headers-$release fits=include/generated/autoconf.h folder
  [ ! -e "$modules/build/$fits" ] || return 0
  [ ! -e "$modules/build" ] || [ -L "$modules/build" ] ||
    fail 4 "$modules/build is a folder without kernel headers; remove it, then run this again"
  packaged "$exact" || [ -n "$(other_headers)" ] || update
  if packaged "$exact"; then
    packages "$exact"
    [ ! -e "$modules/build/$fits" ] || return 0
  elif [ -z "$(other_headers)" ]; then
    folder=$(apt-cache pkgnames linux-headers- | grep -E '^linux-headers-[0-9].*[0-9]-amd64$' | sort -V | tail -n 1)
    [ -n "$folder" ] || fail 5 "no kernel headers are packaged, neither for $release nor others; install them by hand"
    packages "$folder"
  fi
  folder=$(other_headers)
  say "no headers are packaged for $release: linking those of ${folder#*-headers-} (enough: our programs use stable interfaces only)"
  as_root mkdir -p "$modules"
  as_root ln -sfn "/usr/src/$folder" "$modules/build"
  as_root ln -sfn "/usr/src/${folder%-amd64}-common" "$modules/source"
}
packaged() { has apt-cache && apt-cache show "$1" 2>/dev/null | grep -q .; }
other_headers() { find /usr/src -maxdepth 1 -name 'linux-headers-[0-9]*-amd64' -printf '%f\n' 2>/dev/null | sort -V | tail -n 1; }

mounts() {
  local type folder
  while read -r type folder; do
    grep -qE "^[^ ]+ $folder $type " /proc/mounts && continue
    say "mounting $type on $folder"
    as_root mount -t "$type" "$type" "$folder" || say "could not mount $type on $folder; wonted doctor says what that means"
  done <<'END'
tracefs /sys/kernel/tracing
debugfs /sys/kernel/debug
bpf /sys/fs/bpf
END
}

environment() {
  local python=.venv/bin/python site
  if [ "$(readlink -f $python 2>/dev/null)" != "$(readlink -f /usr/bin/python3)" ] || ! $python -c 'import pip' 2>/dev/null; then
    say "making the virtual environment .venv"
    rm -rf .venv
    /usr/bin/python3 -m venv .venv || fail 5 "/usr/bin/python3 -m venv failed (above)"
  fi
  python_packages requirements.txt
  [ "$for_what" != test ] || python_packages requirements-test.txt
  site=$(echo .venv/lib/python3*/site-packages)
  [ -e "$site/bcc/__init__.py" ] || ln -sfn /usr/lib/python3/dist-packages/bcc "$site/bcc"
  [ "$(cat "$site/wonted.pth" 2>/dev/null)" = "$PWD" ] || pwd >"$site/wonted.pth"
  # By /bin/sh, since a long path does not fit a shebang; never with modules of the folder that it is called in.
  cat >.venv/wonted.new <<END
#!/bin/sh
PYTHONSAFEPATH=1 exec "$PWD/.venv/bin/python" -m pipeline "\$@"
END
  if cmp -s .venv/wonted.new .venv/bin/wonted; then rm .venv/wonted.new; else chmod 755 .venv/wonted.new; mv .venv/wonted.new .venv/bin/wonted; fi
  $python -c 'from bcc import BPF' || fail 5 "bcc does not import from .venv; reinstall python3-bpfcc"
}

# Once per content of the list (and per place and Python, since a moved environment is a broken one).
python_packages() {
  local stamp
  stamp=.venv/$1-$({ pwd; /usr/bin/python3 -V; cat "$1"; } | sha256sum | cut -c1-16)
  [ ! -e "$stamp" ] || return 0
  say "installing the Python packages of $1 into .venv (pinned, checked by hash)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --prefer-binary --require-hashes -r "$1" ||
    fail 5 "pip failed (above); check the network (and PIP_CERT behind a proxy), then run this again"
  rm -f ".venv/$1-"*
  touch "$stamp"
}

# What the benchmarks put load on, or compare with. Where one cannot be had, they say so and leave its lines out.
loads() {
  local program package missing=()
  while read -r program package; do has "$program" || missing+=("$package"); done <<'END'
gcc gcc libc6-dev
nginx nginx-light
wrk wrk
redis-server redis-server
redis-benchmark redis-tools
bpftrace bpftrace
END
  [ ${#missing[@]} -gt 0 ] || return 0
  (update) || { say "going on without ${missing[*]}: their benchmarks are left out"; return 0; }
  updated=1
  for package in "${missing[@]}"; do
    # shellcheck disable=SC2086
    (packages $package) || say "going on without $package: its benchmarks are left out"
    # A package enables its service: the next boot shall not start what nobody asked for.
    ! has systemctl || as_root systemctl --quiet disable "${package%-light}" 2>/dev/null || true
  done
}

# What the container of the live examination is made of, and an engine to run it. A service is not started, now or at the next boot.
services() {
  local name
  engine_installed || packages docker.io containerd runc
  packages nginx-light redis-server redis-tools postgresql curl wget openssl procps
  has systemctl || return 0
  for name in nginx redis-server postgresql; do as_root systemctl --quiet disable $name 2>/dev/null || true; done
}

engine_installed() {
  local name
  for name in dockerd podman containerd nerdctl crio; do has $name && return 0; done
  for name in docker-ce containerd.io moby-engine docker.io; do installed $name && return 0; done
  return 1
}

packages python3-bpfcc python3-venv ca-certificates
headers
mounts
if [ "$for_what" = test ]; then
  engine_installed || packages docker.io containerd runc
  packages busybox-static iptables iproute2 linux-libc-dev
  has cc || packages gcc libc6-dev
  has java || packages openjdk-17-jre-headless
  has mvn || packages maven
fi
[ "$for_what" != bench ] || loads
[ "$for_what" != live ] || services
environment
