"""Start `wonted run` as a person would and follow what it says: for the demo, benchmarks and end-to-end tests."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.client import Client
from pipeline.demo.network import die_with_parent

WONTED = (sys.executable, "-m", "pipeline")
READY = "wonted: ready"


class Silent(Exception):
    """What was waited for did not come; the text says what came instead."""


@dataclass(frozen=True, slots=True)
class Line:
    at: int
    """When it was read, nanoseconds since the epoch."""
    text: str
    object: dict[str, Any] = field(default_factory=dict)
    """The line's JSON, where it is a JSON object."""


class Lines:
    """The lines of a stream as they come, read by a thread; `wait` for one."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self.name = name
        self.all: list[Line] = []
        self.ended = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        for raw in iter(stream.readline, b""):
            at, text = time.time_ns(), raw.decode("utf-8", "backslashreplace").rstrip("\n")
            try:
                value = json.loads(text) if text.startswith("{") else {}
            except ValueError:
                value = {}
            with self._news:
                self.all.append(Line(at, text, value))
                self._news.notify_all()
        with self._news:
            self.ended = True
            self._news.notify_all()

    def find(self, wanted: Callable[[Line], bool], since: int = 0) -> Line | None:
        return next((line for line in self.all[since:] if wanted(line)), None)

    def wait(self, wanted: Callable[[Line], bool], timeout: float, what: str, since: int = 0) -> Line:
        """The first line that is wanted, of those after the first `since`. Raises Silent."""
        deadline = time.monotonic() + timeout
        with self._news:
            at = since
            while True:
                for line in self.all[at:]:
                    at += 1
                    if wanted(line):
                        return line
                left = deadline - time.monotonic()
                if self.ended or left <= 0:
                    how = "ended" if self.ended else f"{timeout:g} s passed"
                    raise Silent(f"no {what} on {self.name} ({how}); its last lines:\n{self.tail()}")
                self._news.wait(left)

    def count(self, number: int, wanted: Callable[[Line], bool], timeout: float, what: str) -> list[Line]:
        """Wait until `number` lines are wanted ones; all of them. Raises Silent."""
        found: list[Line] = []

        def enough(line: Line) -> bool:
            if wanted(line):
                found.append(line)
            return len(found) >= number

        self.wait(enough, timeout, f"{number} x {what}")
        return found

    def tail(self, number: int = 12) -> str:
        return "\n".join("    " + line.text[:400] for line in self.all[-number:]) or "    (nothing)"

    def join(self, timeout: float = 10) -> None:
        self._thread.join(timeout)


class Service:
    """`wonted run` in its own session; its alerts come as JSON lines on stdout, its words on stderr."""

    def __init__(
        self,
        data: Path,
        options: Mapping[str, object] | None = None,
        *,
        config: Path | None = None,
        command: Sequence[str] = WONTED,
        environment: Mapping[str, str] | None = None,
        findings: bool = True,
    ) -> None:
        self.data = data
        chosen: dict[str, object] = {"sinks.json.path": "-", "sinks.json.findings": str(findings).lower()}
        chosen |= {"sinks.terminal.enabled": "false"} | dict(options or {})
        self.arguments = [*command, *(("-c", str(config)) if config else ()), "--data", str(data)]
        for key, value in chosen.items():
            self.arguments += ["-o", f"{key}={value}"]
        self.arguments.append("run")
        self.environment = os.environ | dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Service":
        self.process = subprocess.Popen(
            self.arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self.out = Lines(self.process.stdout, "stdout of wonted run")
        self.err = Lines(self.process.stderr, "stderr of wonted run")
        return self

    def ready(self, timeout: float = 90) -> Line:
        return self.err.wait(lambda line: line.text.startswith(READY), timeout, f'line "{READY} ..."')

    def ask(self, op: str, **arguments: Any) -> Any:
        with Client(self.data) as client:
            return client.call(op, **arguments)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self, timeout: float = 30) -> int:
        """Wait for its end; its exit code."""
        assert self.process is not None
        code = self.process.wait(timeout)
        self.out.join()
        self.err.join()
        return code

    def stop(self, timeout: float = 30) -> int | None:
        """SIGTERM, and after `timeout` SIGKILL; the exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.ended()


def tree(pid: int) -> list[int]:
    """A process and all of its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found
