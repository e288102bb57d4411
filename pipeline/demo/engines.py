"""Three ways to run the demo's shop in a container: Docker, runc, or plain namespaces with a cgroup."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Protocol

SHOP = Path(__file__).with_name("shop.py")
FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr")
"""The system's own programs, seen read-only from inside."""
KEPT = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID")
KEPT_NUMBERS = (0, 1, 3, 5, 6, 7)
COMMAND = ("/usr/bin/python3", "-u", "/srv/shop/shop.py")
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SHOP_DATABASE": "10.213.77.5",
}


class CannotRun(Exception):
    """The shop could not be started; the text says what to do."""


class Engine(Protocol):
    name: str
    needs_running_shop: bool
    """True: the container makes its own network namespace, so the cable is laid after the start."""

    known_as: str
    """Part of the name by which Wonted lists the shop."""

    def start(self, namespace: str | None) -> int:
        """Start the shop (in the network namespace at that path); the host's pid of its first process."""

    def stop(self) -> None:
        """Remove every trace; may be called at any time, more than once."""


def folders() -> tuple[list[str], dict[str, str]]:
    """Host folders to bind, and links to repeat (/bin -> usr/bin on a merged system)."""
    present = [Path("/", name) for name in FOLDERS if Path("/", name).exists()]
    return [str(path) for path in present if not path.is_symlink()], {
        path.name: os.readlink(path) for path in present if path.is_symlink()
    }


def make_root(root: Path) -> None:
    """The shop's own files: pages, accounts, a secret, and nothing of the host's but empty folders to mount on."""
    bound, links = folders()
    for name in ("proc", "sys", "dev", "etc", "tmp", "root", "run/secrets", "srv/shop", "var/lib/shop/uploads"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for path in bound:
        (root / path[1:]).mkdir(exist_ok=True)
    for name, target in links.items():
        (root / name).symlink_to(target)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n10.213.77.5 database\n")
    (root / "etc/shadow").write_text("root:$6$wonted$this-is-the-demo's-secret:19000:0:99999:7:::\n")
    (root / "etc/shadow").chmod(0o600)
    cache = Path("/etc/ld.so.cache")
    if cache.exists():
        shutil.copy(cache, root / "etc/ld.so.cache")
    shutil.copy(SHOP, root / "srv/shop/shop.py")
    (root / "srv/shop/index.html").write_text("<h1>A small shop</h1>\n")
    (root / "srv/shop/about.html").write_text("<h1>About</h1>\n")


def quietly(*command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def checked(*command: str) -> str:
    done = quietly(*command)
    if done.returncode:
        raise CannotRun(f"{' '.join(command[:3])} failed: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout.strip()


class Docker:
    name = "Docker"
    needs_running_shop = True

    def __init__(self, base: Path, tag: str, host: str | None = None) -> None:
        self.container = self.known_as = f"shop-{tag}"
        self.image = f"wonted-demo/shop:{tag}"
        self.docker = ("docker", *(("-H", host) if host else ()))
        self.base = base

    @staticmethod
    def found() -> bool:
        return bool(shutil.which("docker")) and quietly("docker", "info", "-f", "{{.ID}}").returncode == 0

    def start(self, namespace: str | None) -> int:
        make_root(self.base / "root")
        tree = BytesIO()
        with tarfile.open(fileobj=tree, mode="w") as archive:
            archive.add(self.base / "root", ".")
        imported = subprocess.run(
            [*self.docker, "import", "-", self.image], input=tree.getvalue(), capture_output=True, check=False
        )
        if imported.returncode:
            raise CannotRun(f"docker import failed: {imported.stderr.decode(errors='replace').strip()}")
        binds = [part for path in folders()[0] for part in ("-v", f"{path}:{path}:ro")]
        environment = [part for key, value in ENVIRONMENT.items() for part in ("-e", f"{key}={value}")]
        run = ("run", "-d", "--init=false", "--network", "none", "--name", self.container)
        checked(*self.docker, *run, *binds, *environment, self.image, *COMMAND)
        return int(checked(*self.docker, "inspect", "-f", "{{.State.Pid}}", self.container))

    def stop(self) -> None:
        quietly(*self.docker, "rm", "-f", "-v", self.container)
        quietly(*self.docker, "rmi", "-f", self.image)


class Runc:
    name = "runc"
    needs_running_shop = False

    def __init__(self, base: Path, tag: str) -> None:
        self.container = self.known_as = f"shop-{tag}"
        self.base = base

    @staticmethod
    def found() -> bool:
        return bool(shutil.which("runc"))

    def start(self, namespace: str | None) -> int:
        make_root(self.base / "root")
        (self.base / "config.json").write_text(json.dumps(self.spec(namespace), indent=1))
        log = self.base / "shop.log"
        with log.open("wb") as out:  # a pipe would stay open in the container and never end
            where = ("--bundle", str(self.base), "--pid-file", str(self.base / "pid"))
            command = ["runc", "run", "-d", *where, self.container]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=30, check=False)
        if done.returncode:
            raise CannotRun(f"runc run failed: {log.read_text(errors='replace').strip()[-400:]}")
        return int((self.base / "pid").read_text())

    def spec(self, namespace: str | None) -> dict[str, object]:
        quiet = ["nosuid", "noexec", "nodev"]
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        ]
        for path in folders()[0]:
            mounts.append({"destination": path, "type": "bind", "source": path, "options": ["bind", "ro"]})
        namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]
        namespaces.append({"type": "network", "path": str(namespace)} if namespace else {"type": "network"})
        return {
            "ociVersion": "1.0.2",
            "hostname": "shop",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": list(COMMAND),
                "env": [f"{key}={value}" for key, value in ENVIRONMENT.items()],
                "cwd": "/",
                "noNewPrivileges": True,
                "capabilities": {kind: list(KEPT) for kind in ("bounding", "effective", "permitted")},
            },
            "root": {"path": str(self.base / "root"), "readonly": False},
            "mounts": mounts,
            "linux": {"namespaces": namespaces, "cgroupsPath": f"/{self.container}"},
        }

    def stop(self) -> None:
        quietly("runc", "delete", "--force", self.container)


class Plain:
    """Namespaces and a cgroup of our own: what a runtime does, for a machine that has none."""

    name = "plain namespaces"
    needs_running_shop = False

    def __init__(self, base: Path, tag: str) -> None:
        self.base = base
        self.id = secrets.token_hex(32)
        self.known_as = self.id[:12]
        self.command: tuple[str, ...] = COMMAND
        self.environment = ENVIRONMENT
        self.cell: subprocess.Popen[str] | None = None
        self.group: Path | None = None

    @staticmethod
    def found() -> bool:
        return True

    def furnish(self, root: Path) -> None:
        make_root(root)

    def start(self, namespace: str | None) -> int:
        self.furnish(self.base / "root")
        self.group = cgroup2() / "wonted-demo" / self.id
        self.group.mkdir(parents=True)
        binds, _ = folders()
        task = {
            "root": str(self.base / "root"),
            "binds": binds,
            "cgroup": str(self.group),
            "netns": namespace,
            "command": self.command,
            "environment": self.environment,
            "keep": KEPT_NUMBERS,
        }
        self.cell = subprocess.Popen(
            [sys.executable, "-m", "pipeline.demo.cell", json.dumps(task)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.cell.stdout is not None
        line = self.cell.stdout.readline()
        if not line.strip().isdigit():
            raise CannotRun(f"the namespaces could not be made ({line.strip() or 'see above'}); this needs root")
        return int(line)

    def stop(self) -> None:
        if self.cell is not None:
            self.cell.kill()  # its child, the first of the pid namespace, dies with it, and all others with that
            self.cell.wait()
        if self.group is not None:
            empty_and_remove(self.group)
            with suppress(OSError):
                self.group.parent.rmdir()


def cgroup2() -> Path:
    """Where cgroup v2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified beside v1."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        if right.split()[0] == "cgroup2":
            return Path(left.split()[4])
    raise CannotRun("no cgroup v2 hierarchy is mounted; mount -t cgroup2 none /sys/fs/cgroup/unified")


def empty_and_remove(group: Path, tries: int = 100) -> None:
    """Kill what is left in the cgroup and remove it; the kernel needs a moment between the two."""
    import time

    for _ in range(tries):
        with suppress(OSError):
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise CannotRun(f"{group} is still in use")


ENGINES: dict[str, Callable[[Path, str], Engine]] = {"docker": Docker, "runc": Runc, "plain": Plain}


def choose(wanted: str, base: Path, tag: str) -> Engine:
    """`wanted`, or the first of Docker, runc and plain namespaces that this machine has."""
    if wanted != "auto":
        return ENGINES[wanted](base, tag)
    kind = next(kind for kind in (Docker, Runc, Plain) if kind.found())
    return kind(base, tag)
