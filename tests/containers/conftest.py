"""Containers to look at, made with what the machine has, and the real probe process to look at them with.

Docker: the one that runs here, else Debian's, started in a folder of its own. No registry is needed: the image is a
busybox tree that `docker import` takes.
"""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from probes.batch import decode
from probes.event import Event
from tests.dockerd import daemon

ROOT = Path(__file__).parents[2]
BUSYBOX = Path("/bin/busybox")
APPLETS = (
    "sh ash ls cat echo true false sleep wget nc nslookup id ps kill mount umount unshare tty touch rm mkdir chroot "
    "setsid env httpd ip head tail xargs seq date hostname chmod cp mv ln stat test"
).split()
TREE = ("bin", "dev", "proc", "sys", "tmp", "etc", "root", "var")


@pytest.fixture(scope="session", autouse=True)
def real_kernel() -> None:
    if os.geteuid() != 0:
        pytest.skip("container tests need root")
    if not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("the kernel has no BTF (/sys/kernel/btf/vmlinux)")


def busybox_tree(folder: Path) -> Path:
    """A root file system of one static program."""
    if not BUSYBOX.exists():
        pytest.skip("no busybox: apt-get install busybox-static")
    for name in TREE:
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, folder / "bin/busybox")
    for applet in APPLETS:
        os.link(folder / "bin/busybox", folder / "bin" / applet)
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return folder


class Docker:
    """One engine and the image `wonted-test:1`."""

    def __init__(self, host: str) -> None:
        self.host = host

    def __call__(self, *words: str, check: bool = True, **more: object) -> str:
        done = subprocess.run(
            ["docker", "-H", self.host, *words], capture_output=True, text=True, timeout=120, check=False, **more
        )  # type: ignore[call-overload]
        assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
        return str(done.stdout).strip()

    def popen(self, *words: str, **more: object) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["docker", "-H", self.host, *words], **more)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    if not shutil.which("dockerd") or not shutil.which("docker"):
        pytest.skip("no docker here: apt-get install docker.io (never where another engine is installed)")
    with daemon(bridge=True) as host:
        with tempfile.TemporaryDirectory() as tree:
            packed = BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as tar:
                tar.add(busybox_tree(Path(tree)), arcname=".")
            subprocess.run(
                ["docker", "-H", host, "import", "-", "wonted-test:1"],
                input=packed.getvalue(),
                check=True,
                capture_output=True,
            )
        yield Docker(host)


class Runc:
    """Plain runc with one bundle: `run(id, words)`."""

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle
        self.ids: list[str] = []

    def config(self, *words: str, name: str, privileged: bool = False, mounts: tuple[str, ...] = ()) -> Path:
        """A bundle of its own with the shared root file system."""
        folder = self.bundle / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").unlink(missing_ok=True)
        subprocess.run(["runc", "spec"], cwd=folder, check=True)
        config = json.loads((folder / "config.json").read_text())
        config["process"] |= {"terminal": False, "args": list(words)}
        config["root"] = {"path": str(self.bundle / "rootfs"), "readonly": False}
        if privileged:
            every = ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_PTRACE", "CAP_NET_ADMIN", "CAP_KILL"]
            config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
        for source in mounts:
            config["mounts"].append(
                {"destination": "/tmp/mounted", "type": "bind", "source": source, "options": ["bind"]}
            )
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def start(self, id_: str, *words: str, **more: object) -> "subprocess.Popen[bytes]":
        folder = self.config(*words, name=str(more.pop("name", id_)), **more)  # type: ignore[arg-type]
        self.ids.append(id_)
        return subprocess.Popen(["runc", "run", id_], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def run(self, id_: str, *words: str, **more: object) -> None:
        process = self.start(id_, *words, **more)
        process.communicate(timeout=30)


@pytest.fixture
def runc() -> Iterator[Runc]:
    if not shutil.which("runc"):
        pytest.skip("no runc here: apt-get install runc")
    base = Path(tempfile.mkdtemp(prefix="wonted-runc-"))
    busybox_tree(base / "rootfs")
    plain = Runc(base)
    yield plain
    for id_ in plain.ids:
        subprocess.run(["runc", "delete", "-f", id_], check=False, capture_output=True)
    shutil.rmtree(base, ignore_errors=True)


class Watch:
    """The real probe process (`python -m probes`), and a worker's end of its socket that keeps every event."""

    def __init__(self, base: Path, **settings: object) -> None:
        self.events: list[Event] = []
        self.states: list[dict[str, object]] = []
        self.lost: dict[str, int] = {}
        self.notes: list[dict[str, object]] = []
        self.batches = 0
        self._changed = threading.Condition()
        path = str(base / "wonted.sock")
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen(1)
        self.process = subprocess.Popen([sys.executable, "-m", "probes"], stdin=subprocess.PIPE, cwd=ROOT)
        orders = {"socket": path, "settings": settings, "partitions": 4, "host": "test", "state_dir": str(base)}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(orders).encode() + b"\n")
        self.process.stdin.flush()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._await(lambda: bool(self.states), 60, "the probes to be attached")

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        buffer = b""
        with connection, suppress(ConnectionError):
            while piece := connection.recv(1 << 16):
                buffer += piece
                while len(buffer) >= 4 and len(buffer) >= 4 + (size := struct.unpack("<I", buffer[:4])[0]):
                    self._take(msgspec.msgpack.decode(buffer[4 : 4 + size]))
                    buffer = buffer[4 + size :]
                    answer = msgspec.msgpack.encode({"ok": True, "offset": 0})
                    connection.sendall(struct.pack("<I", len(answer)) + answer)
        with self._changed:
            self._changed.notify_all()

    def _take(self, frame: dict[str, object]) -> None:
        with self._changed:
            if frame["op"] == "batch":
                batch = decode(frame["payload"])  # type: ignore[arg-type]
                self.events += batch.events
                self.batches += 1
                for name, count in batch.lost.items():
                    self.lost[name] = self.lost.get(name, 0) + count
                if batch.note:
                    self.notes.append(batch.note)
            elif frame["op"] == "state":
                self.states.append(frame)
            self._changed.notify_all()

    def _await(self, true: Callable[[], bool], timeout: float, what: str) -> None:
        with self._changed:
            arrived = self._changed.wait_for(lambda: true() or self.process.poll() is not None, timeout)
            assert arrived and true(), f"waited {timeout:g} s for {what}; probe exit code {self.process.poll()}"

    def settled(self) -> list[Event]:
        """Everything that happened before this call: two programs that were started after it have been told."""
        for _ in range(2):
            mark = f"mark-{uuid4().hex}"
            subprocess.run(["/bin/true", mark], check=True)
            self._await(lambda mark=mark: any(mark in e.process.argv for e in self.events[-20_000:]), 20, mark)  # type: ignore[misc]
            batches = self.batches
            self._await(lambda batches=batches: self.batches > batches + 4, 20, "a batch of each partition")  # type: ignore[misc]
        with self._changed:
            return list(self.events)

    def wait_for(self, wanted: Callable[[Event], bool], what: str, timeout: float = 20) -> Event:
        self._await(lambda: any(wanted(e) for e in self.events), timeout, what)
        with self._changed:
            return next(e for e in self.events if wanted(e))

    def forget(self) -> None:
        """What came so far is of no interest."""
        with self._changed:
            self.events.clear()

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(15)
        self._thread.join(10)
        self._server.close()
        return code


@pytest.fixture(scope="module")
def start_watch() -> Iterator[Callable[..., Watch]]:
    bases: list[Path] = []
    started: list[Watch] = []

    def start(base: Path | None = None, **settings: object) -> Watch:
        if base is None:
            base = Path(tempfile.mkdtemp(prefix="wonted-watch-"))
            bases.append(base)
        started.append(Watch(base, **settings))
        return started[-1]

    yield start
    for watch in started:
        if watch.process.poll() is None:
            watch.stop()
    for base in bases:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module")
def watch(start_watch: Callable[..., Watch]) -> Watch:
    return start_watch()
