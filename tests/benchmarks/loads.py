"""What runs while something is attached: loops of one call, and programs that people use. All on this machine."""

import re
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.benchmarks.common import HERE, Cell, Load

REPEATS = 3
"""Runs of a loop, of which the median counts."""
WARM = 0.2
"""Size of the run before the measured one: page cache, and what an enforcing workload knows."""
FILES, FOLDERS, SIZE = 2000, 40, 2048
"""The tree for find + cat: files in all, folders, bytes of each."""
NAMES = [consonant + vowel for consonant in "bdfgklmn" for vowel in "aeio"]
"""As in load.c: 32 links make 2^20 paths of four steps."""


@dataclass(frozen=True, slots=True)
class Run:
    work: float
    cpu_s: float
    """User and system time of the load's own processes."""
    wall_s: float


Go = Callable[[float], Run]
"""Do it once; the argument scales how much of it."""


class Work(Protocol):
    name: str
    title: str
    unit: str
    needs: tuple[str, ...]
    loop: bool
    """True: a loop of one call, told in ns each. False: told as work per CPU-second."""

    def running(self, place: Cell, base: Path, load: Load) -> AbstractContextManager[Go]:
        """Start what it needs, in `place`; whatever it started is gone at the end."""


@dataclass(frozen=True)
class Loop:
    """One call over and over, by load.c."""

    name: str
    title: str
    count: int
    arguments: Callable[[int, Path], tuple[str, ...]]
    unit: str = "calls"
    needs: tuple[str, ...] = ("gcc",)
    loop: bool = True

    @contextmanager
    def running(self, place: Cell, base: Path, load: Load) -> Iterator[Go]:
        def go(scale: float) -> Run:
            count = int(self.count * scale)
            said = [place.run(*load.command, *self.arguments(count, base)) for _ in range(REPEATS)]
            failed = sum(one["failed"] for one in said)
            if failed:
                raise RuntimeError(f"{self.title}: {failed} of {REPEATS * count} calls failed")
            cpu = statistics.median(one["cpu_s"] for one in said)
            return Run(count, cpu, sum(one["wall_s"] for one in said) / REPEATS)

        yield go


class Paths:
    """Opens of an existing file by a path that was never used before."""

    name, title, unit, needs, loop = "paths", "open, each a new path", "calls", ("gcc",), True
    COUNT = 40_000

    @contextmanager
    def running(self, place: Cell, base: Path, load: Load) -> Iterator[Go]:
        names = many_names(base / "names")
        at = 0

        def go(scale: float) -> Run:
            nonlocal at
            said = place.run(*load.command, "paths", str(int(self.COUNT * scale)), str(at), str(names), "0")
            at += said["done"]
            return Run(said["done"], said["cpu_s"], said["wall_s"])

        yield go


def many_names(folder: Path) -> Path:
    """A folder in which bo/di/fe/ga/f and a million like it are the same file."""
    folder.mkdir(exist_ok=True)
    (folder / "f").touch()
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(".")
    return folder


def counted(place: Cell, work: Callable[[], float]) -> Run:
    """With the CPU time of everything in the cgroup."""
    used, start = place.cpu(), time.monotonic()
    done = work()
    return Run(done, place.cpu() - used, time.monotonic() - start)


def output(place: Cell, *command: str) -> str:
    process = place.popen(*command)
    said, _ = process.communicate(timeout=120)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return said.decode(errors="replace")


def repeat(place: Cell, times: int, command: str) -> None:
    output(place, "/bin/sh", "-c", f"set -e; i=0; while [ $i -lt {times} ]; do {command}; i=$((i+1)); done")


class Tree:
    """find -exec cat of a tree, as a backup or a search does."""

    name, title, unit, needs, loop = "find", "find + cat", "files", ("find",), False
    PASSES = 15

    @contextmanager
    def running(self, place: Cell, base: Path, load: Load) -> Iterator[Go]:
        tree = base / "tree"
        for number in range(FILES):
            file = tree / f"part-{number % FOLDERS}" / f"page-{number}.txt"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"a line of text\n" * (SIZE // 15))

        def go(scale: float) -> Run:
            passes = max(1, int(self.PASSES * scale))

            def work() -> float:
                repeat(place, passes, f"find {tree} -type f -exec cat {{}} + >/dev/null")
                return passes * FILES

            return counted(place, work)

        yield go


class Compile:
    """gcc: some processes, many headers, temporary files with new names; most of the time it computes."""

    name, title, unit, needs, loop = "gcc", "gcc", "compiles", ("gcc",), False
    TIMES = 4

    @contextmanager
    def running(self, place: Cell, base: Path, load: Load) -> Iterator[Go]:
        def go(scale: float) -> Run:
            times = max(1, int(self.TIMES * scale))

            def work() -> float:
                repeat(place, times, f"gcc -O2 -c -o {base}/load.o {HERE}/load.c")
                return times

            return counted(place, work)

        yield go


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def server(place: Cell, port: int, *command: str) -> Iterator[None]:
    """Started in `place`, and answering."""
    process = place.popen(*command)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not start on port {port}") from None
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Nginx:
    """One worker, one page of 4 KiB without any cache of descriptors, 16 connections of wrk."""

    name, title, unit, needs, loop = "nginx", "nginx + wrk", "requests", ("nginx", "wrk"), False
    SECONDS = 2

    @contextmanager
    def running(self, place: Cell, base: Path, load: Load) -> Iterator[Go]:
        port, folder = free_port(), base / "nginx"
        (folder / "www").mkdir(parents=True, exist_ok=True)
        (folder / "www/index.html").write_text("<p>a page</p>\n" * 292)
        (folder / "nginx.conf").write_text(
            f"daemon off; user root; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
            "events { worker_connections 256; }\n"
            f"http {{ access_log {folder}/access.log; sendfile on;\n"
            + "".join(f"  {kind}_temp_path {folder}/{kind};\n" for kind in TEMPORARY)
            + f"  server {{ listen 127.0.0.1:{port}; root {folder}/www; }} }}\n"
        )
        program = shutil.which("nginx") or "nginx"

        def go(scale: float) -> Run:
            seconds = max(1, round(self.SECONDS * scale))
            client = ("wrk", "-t1", "-c16", f"-d{seconds}s", f"http://127.0.0.1:{port}/index.html")

            def work() -> float:
                said = output(place, *client)
                found = re.search(r"(\d+) requests in", said)
                if found is None or "Non-2xx" in said:
                    raise RuntimeError(f"wrk: {said.strip()[-300:]}")
                return int(found[1])

            return counted(place, work)

        with server(place, port, program, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")):
            yield go


TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
"""Folders that nginx makes at its start, used or not."""


class Redis:
    """redis-benchmark without pipelining: 50 clients, SET and GET, every one a read and a write on each side."""

    name, title, unit, needs, loop = "redis", "redis -P 1", "requests", ("redis-server", "redis-benchmark"), False
    COUNT = 15_000

    @contextmanager
    def running(self, place: Cell, base: Path, load: Load) -> Iterator[Go]:
        port, folder = free_port(), base / "redis"
        folder.mkdir(exist_ok=True)
        options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning")

        def go(scale: float) -> Run:
            count = int(self.COUNT * scale)
            client = (
                "redis-benchmark",
                "-p",
                str(port),
                "-P",
                "1",
                "-c",
                "50",
                "-n",
                str(count),
                "-t",
                "set,get",
                "--csv",
            )

            def work() -> float:
                said = output(place, *client)
                if '"GET"' not in said:
                    raise RuntimeError(f"redis-benchmark: {said.strip()[-300:]}")
                return 2 * count

            return counted(place, work)

        with server(place, port, "redis-server", "--port", str(port), "--dir", str(folder), *options):
            yield go


LOADS: tuple[Work, ...] = (
    Loop("getppid", "getppid", 600_000, lambda count, base: ("getppid", str(count))),
    Loop("read", "read 1 byte", 500_000, lambda count, base: ("read", str(count), "/dev/zero")),
    Loop("open", "open+close", 60_000, lambda count, base: ("open", str(count), "/dev/null")),
    Loop("exec", "fork+exec", 150, lambda count, base: ("forkexec", str(count), "/bin/true")),
    Loop("connect", "connect+accept", 3_000, lambda count, base: ("connect", str(count))),
    Tree(),
    Compile(),
    Nginx(),
    Redis(),
    Paths(),
)
