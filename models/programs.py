"""What a program is called here, and what it is good for. Names come from the kernel; what they mean is one table."""

import re
from functools import lru_cache

from probes.event import Process

MULTICALL = frozenset({"busybox", "toybox", "coreutils", "busybox-static"})
"""One binary, many programs: argv[0] says which."""

SHELLS = frozenset("sh bash dash ash zsh ksh mksh fish csh tcsh rbash".split())
INTERPRETERS = frozenset("python perl ruby node nodejs php lua tclsh awk gawk mawk java deno bun pypy".split())
DOWNLOAD = frozenset("wget curl fetch aria2c lynx ftp tftp scp sftp rsync lwp-download http".split())
NETWORK = frozenset(
    "nc ncat netcat nc.openbsd nc.traditional socat telnet ssh nmap masscan dig nslookup host ping tcpdump tshark "
    "chisel proxychains openssl".split()
)
RECON = frozenset(
    "id whoami uname hostname ps top w who last ss netstat ip ifconfig arp lsof env printenv getent groups mount df "
    "lsblk lscpu lsmod dmesg capsh find locate which crontab".split()
)
CHANGE = frozenset(
    "apt apt-get dpkg apk yum dnf rpm pip pip3 npm gem chmod chown chattr setfacl useradd adduser usermod passwd "
    "chpasswd su sudo doas nsenter unshare insmod modprobe mknod dd base64 xxd gcc cc g++ make ld tcc go rustc "
    "gdb strace ltrace setcap kill pkill killall shred nohup setsid docker kubectl ctr crictl runc".split()
)
COPIERS = frozenset("tar gzip gunzip bzip2 xz zstd zip unzip 7z cpio rsync pigz lz4 ar install openssl gpg".split())
"""What reads whatever it is told to and hands it on; where it reads under a known tree says little, elsewhere much."""
VIEWERS = frozenset(
    "cat head tail less more grep egrep fgrep zcat od xxd hexdump strings base64 cp mv dd nl tac rev sort".split()
)

_CLASSES = (("shell", SHELLS), ("download", DOWNLOAD), ("network", NETWORK), ("recon", RECON), ("change", CHANGE),
            ("interpreter", INTERPRETERS))  # fmt: skip
_VERSION = re.compile(r"[-.]?\d[\d.]*(?:-\w+)?$")


@lru_cache(maxsize=4096)
def base(path: str) -> str:
    """
    >>> base("/usr/bin/python3.11"), base("/bin/busybox wget"), base("/usr/bin/nc.openbsd")
    ('python', 'wget', 'nc.openbsd')
    """
    name = path.rsplit("/", 1)[-1].rsplit(" ", 1)[-1]
    return _VERSION.sub("", name) or name


@lru_cache(maxsize=4096)
def tool(program: str) -> str | None:
    """shell, download, network, recon, change, interpreter, or None for anything else.

    >>> tool("/usr/bin/python3.11"), tool("/bin/busybox wget"), tool("/usr/sbin/nginx")
    ('interpreter', 'download', None)
    """
    name = base(program)
    full = program.rsplit("/", 1)[-1].rsplit(" ", 1)[-1]
    for word, names in _CLASSES:
        if name in names or full in names:
            return word
    return None


def is_viewer(program: str) -> bool:
    return base(program) in VIEWERS


def is_copier(program: str) -> bool:
    return base(program) in COPIERS


@lru_cache(maxsize=8192)
def _named(exe: str, first: str, second: str) -> str:
    if exe.endswith(" (deleted)"):
        exe = exe[:-10]
    name = exe.rsplit("/", 1)[-1]
    if name in MULTICALL:
        applet = first.rsplit("/", 1)[-1].lstrip("-")
        if applet in MULTICALL or not applet:
            applet = second.rsplit("/", 1)[-1]
        return f"{exe} {applet}" if applet and applet != name else exe
    return exe


def program(process: Process) -> str:
    """Path of the image, and the applet where one binary is many programs.

    >>> program(Process(1, 1, 0, "wget", "/bin/busybox", ("wget", "-q", "http://x")))
    '/bin/busybox wget'
    """
    argv = process.argv
    exe = process.exe
    if not exe:
        return f"[{process.comm}]"
    return _named(exe, argv[0] if argv else "", argv[1] if len(argv) > 1 else "")


def parent(process: Process) -> str:
    """Who started it: the parent's program, or how it came in where that is all there is to know."""
    up = process.parent
    if up is not None:
        return program(up)
    return f"({process.entered})" if process.entered else "(start)"
