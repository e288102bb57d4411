"""End to end: a real `wonted run` on the real kernel, looked at from outside, and a real web shop in a container."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.demo.engines import CannotRun, Engine, Plain, Runc
from pipeline.demo.play import FakeSlack, Town
from pipeline.demo.service import WONTED, Service
from tests.benchmarks.common import Cell

Start = Callable[..., Service]


@pytest.fixture(scope="session", autouse=True)
def real_kernel() -> None:
    if os.geteuid() != 0:
        pytest.skip("end-to-end tests need root: they load eBPF programs and make containers")
    if not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("the kernel has no BTF (/sys/kernel/btf/vmlinux)")


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Start `wonted run` on a data directory of its own (or the one given) and wait until it is ready."""
    with ExitStack() as stack:

        def begin(options: dict[str, object] | None = None, data: Path | None = None, **more: Any) -> Service:
            if data is None:
                data = Path(tempfile.mkdtemp(prefix="wonted-e2e-"))
                stack.callback(shutil.rmtree, data, ignore_errors=True)
            service = Service(data, options, **more).start()
            stack.callback(service.stop)
            service.ready()
            return service

        yield begin


class Shop:
    """The demo's shop in a container: what is asked of its hole happens inside."""

    def __init__(self, engine: Engine, town: Town) -> None:
        self.engine, self.town = engine, town

    def evaluate(self, formula: str) -> str:
        answer = self.town.say(get=f"/price?formula={quote(formula)}")
        assert answer["status"] == 200, answer
        return str(answer["body"])

    def run(self, *command: str | bytes) -> str:
        return self.evaluate(f"__import__('subprocess').run({list(command)!r}, capture_output=True, timeout=15)")

    def traffic(self, on: bool) -> dict[str, Any]:
        answer: dict[str, Any] = self.town.say(traffic=on)
        return answer

    def row(self, service: Service) -> dict[str, Any] | None:
        return next((row for row in service.ask("workloads") if self.engine.known_as in row["workload"]), None)

    def until(self, service: Service, wanted: Callable[[dict[str, Any]], bool], timeout: float = 40) -> dict[str, Any]:
        row: dict[str, Any] = until(lambda: self.row(service), lambda row: bool(row) and wanted(row), timeout)
        return row


def until(look: Callable[[], Any], wanted: Callable[[Any], bool], timeout: float = 30) -> Any:
    """Look, a few times a second, until it is as wanted: for what can only be asked, not followed."""
    deadline = time.monotonic() + timeout
    while not wanted(seen := look()):
        assert time.monotonic() < deadline, f"not so after {timeout:g} s: {seen}"
        time.sleep(0.1)
    return seen


@pytest.fixture(scope="module")
def open_shop() -> Iterator[Callable[[], Shop]]:
    with ExitStack() as stack:

        def begin() -> Shop:
            base = Path(tempfile.mkdtemp(prefix="wonted-e2e-"))
            stack.callback(shutil.rmtree, base, ignore_errors=True)
            kind = Runc if Runc.found() else Plain
            engine: Engine = kind(base, base.name[-6:].replace("_", "x"))
            town = Town(None)
            stack.callback(town.close)
            stack.callback(engine.stop)
            try:
                engine.start(town.namespace)
            except CannotRun as error:
                pytest.skip(f"no container can be made here: {error}")
            until(lambda: town.say(get="/")["status"], lambda status: status == 200, 20)
            return Shop(engine, town)

        yield begin


@pytest.fixture
def cell() -> Iterator[Cell]:
    """A cgroup that is a workload of its own."""
    made = Cell()
    yield made
    made.close()


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    fake = FakeSlack()
    yield fake
    fake.close()


def cli(*words: str, data: Path | None = None, timeout: float = 60, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    where = ("--data", str(data)) if data else ()
    return subprocess.run(
        [*WONTED, *where, *words], capture_output=True, text=True, errors="backslashreplace", timeout=timeout, **more
    )


def objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """One JSON object per line, and nothing else."""
    return [json.loads(line) for line in done.stdout.splitlines()]


PYTHON = sys.executable
