"""The image of the mix: Debian as this machine has it (packages, their files, their links), and the files in box/.

No registry is needed: `docker import` takes the tree from a pipe.
"""

import io
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

BOX = Path(__file__).with_name("box")
PACKAGES = (
    "base-files base-passwd bash ca-certificates coreutils curl dash debianutils findutils grep gzip libc-bin mawk "
    "nginx-light openssl perl-base postgresql-15 postgresql-client-15 procps python3 redis-server redis-tools sed tar "
    "tzdata util-linux wget"
).split()
NEEDED = {
    "dockerd": "docker.io", "docker": "docker.io", "nginx": "nginx-light", "redis-server": "redis-server",
    "redis-cli": "redis-tools", "psql": "postgresql", "curl": "curl", "wget": "wget", "openssl": "openssl",
}  # fmt: skip
"""Program -> Debian's package."""
_LEFT_OUT = re.compile(
    r"^(?:libllvm|libz3|perl$|perl-modules|libperl|systemd|dpkg|apt$|debconf|adduser|cdebconf|postgresql-common|ssl-cert"
    r"|postgresql-client-common|init-system-helpers|lsb-base|logrotate|ucf|sensible-utils)"
)
"""What maintainer scripts need, and programs do not."""
_UNWANTED = re.compile(r"^/usr/share/(?:doc|man|locale|info|lintian|i18n|bug)/|/bitcode/|^/usr/lib/locale/|/llvmjit")
ACCOUNTS = (("root", 0, "/root"), ("www-data", 33, "/var/www"), ("redis", 101, "/var/lib/redis"),
            ("postgres", 102, "/var/lib/postgresql"), ("app", 1000, "/home/app"))  # fmt: skip


def missing() -> list[str]:
    """Debian packages to install before the mix can be made."""
    return sorted({package for program, package in NEEDED.items() if not shutil.which(program)})


def packages() -> list[str]:
    """PACKAGES and what they depend on, of what is installed here."""
    form = "${Package}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    rows = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    depends: dict[str, str] = {}
    gives: dict[str, str] = {}
    for row in rows.splitlines():
        name, status, needs, provides = row.split("\t")
        if status != "installed":
            continue
        depends[name] = needs
        for provided in re.findall(r"[\w.+-]+(?=[ ,(]|$)", provides):
            gives.setdefault(provided, name)
    found: set[str] = set()
    todo = list(PACKAGES)
    while todo:
        asked = todo.pop()
        package = asked if asked in depends else gives.get(asked)
        if package is None or package in found or _LEFT_OUT.match(package):
            continue
        found.add(package)
        for alternatives in depends[package].split(","):
            names = [re.sub(r"[ (:].*", "", name.strip()) for name in alternatives.split("|")]
            todo += [name for name in names if name in depends or name in gives][:1]
    return sorted(found)


def files() -> Iterator[str]:
    """Files and links of the packages, under their real folders (/bin is a link to /usr/bin)."""
    listed = subprocess.run(["dpkg", "-L", *packages()], capture_output=True, text=True, check=True).stdout
    seen: set[str] = set()
    extra = ["/etc/alternatives/awk", "/usr/bin/awk", "/etc/ld.so.cache", "/etc/localtime"]
    for path in listed.splitlines() + extra:
        folder, name = os.path.split(path)
        real = os.path.join(os.path.realpath(folder), name)
        if real not in seen and not _UNWANTED.search(real) and (os.path.isfile(real) or os.path.islink(real)):
            seen.add(real)
            yield real


def own(certificate: bytes, key: bytes) -> dict[str, tuple[bytes, int, int]]:
    """path -> (content, mode, owner) of what the image's author wrote."""
    passwd = "".join(f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n" for name, uid, home in ACCOUNTS)
    made: dict[str, tuple[bytes, int, int]] = {
        "etc/passwd": (passwd.encode(), 0o644, 0),
        "etc/group": ("".join(f"{name}:x:{uid}:\n" for name, uid, _ in ACCOUNTS).encode(), 0o644, 0),
        "etc/shadow": (b"root:$6$wonted$not-a-password-of-anybody:19000:0:99999:7:::\n", 0o640, 0),
        "etc/nginx/nginx.conf": ((BOX / "nginx.conf").read_bytes(), 0o644, 0),
        "etc/nginx/tls/site.crt": (certificate, 0o644, 0),
        "etc/nginx/tls/site.key": (key, 0o600, 0),
        "etc/redis/redis.conf": ((BOX / "redis.conf").read_bytes(), 0o644, 0),
        "run/secrets/db": (b"trusted\n", 0o444, 0),
        "run/secrets/payment": (b"sk_live_nothing\n", 0o444, 0),
        "app/settings.json": (b'{"colour": "blue", "partner": "api.partner.example"}\n', 0o644, 0),
        "data/private/customers.csv": (b"name,card\nana,4111\n", 0o644, 0),
        "root/.bash_history": (b"psql\nexit\n", 0o600, 0),
        "root/notes.txt": (b"call the plumber\n", 0o600, 0),
    }
    for name in ("entry.sh", "runner.sh", "every.sh", "tidy.sh", "daily.sh", "worker.py"):
        made["entry.sh" if name == "entry.sh" else f"app/{name}"] = ((BOX / name).read_bytes(), 0o755, 0)
    for number in range(12):
        made[f"srv/www/page{number}.html"] = (f"<h1>Page {number}</h1>\n".encode() * (1 + 7 * number), 0o644, 0)
    made["srv/www/index.html"] = (b"<h1>A mix</h1>\n", 0o644, 0)
    made["srv/www/style.css"] = (b"h1 { color: blue }\n" * 40, 0o644, 0)
    return made


FOLDERS: dict[str, tuple[int, int]] = {
    "proc": (0o755, 0), "sys": (0o755, 0), "dev": (0o755, 0), "tmp": (0o1777, 0), "var/tmp": (0o1777, 0),
    "var/log/nginx": (0o755, 0), "var/lib/nginx": (0o755, 0), "var/lib/redis": (0o750, 101),
    "var/lib/postgresql": (0o755, 102), "home/app": (0o755, 1000), "root": (0o700, 0), "mnt": (0o755, 0),
    "data": (0o755, 1000), "data/private": (0o755, 1000), "data/documents": (0o777, 0), "opt": (0o755, 0),
    "etc/profile.d": (0o755, 0),
    "var/spool/cron/crontabs": (0o1730, 0), "run": (0o755, 0), "etc/cron.d": (0o755, 0),
}  # fmt: skip


MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Links into /usr."""


def postgres() -> Path:
    return next(Path("/usr/lib/postgresql").glob("*/bin"))


def certificate(folder: Path) -> tuple[bytes, bytes]:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mix.example"),
            *("-keyout", folder / "key", "-out", folder / "crt"),
        ],
        check=True,
        capture_output=True,
    )
    return (folder / "crt").read_bytes(), (folder / "key").read_bytes()


def write(out: IO[bytes], folder: Path) -> None:
    """The whole tree as a tar stream."""
    made = own(*certificate(folder))
    links = {f"usr/bin/{name}": f"{postgres()}/{name}" for name in ("psql", "pg_dump")}  # Debian's are Perl wrappers
    links |= {name: os.readlink(f"/{name}") for name in MERGED if os.path.islink(f"/{name}")}
    with tarfile.open(fileobj=out, mode="w|") as tar:

        def put(name: str, mode: int, uid: int, **more: object) -> tarfile.TarInfo:
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid, info.mtime = mode, uid, uid, int(time.time())
            for field, value in more.items():
                setattr(info, field, value)
            return info

        for name, target in links.items():
            tar.addfile(put(name, 0o777, 0, type=tarfile.SYMTYPE, linkname=target))
        for path in files():
            if path[1:] not in made and path[1:] not in links:
                tar.add(path, path[1:], recursive=False)
        for name, (mode, uid) in FOLDERS.items():
            tar.addfile(put(name, mode, uid, type=tarfile.DIRTYPE))
        for name, (content, mode, uid) in made.items():
            tar.addfile(put(name, mode, uid, size=len(content)), io.BytesIO(content))
