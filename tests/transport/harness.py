"""A process whose lines can be awaited, and that can be killed at any time."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def _end_with_us() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    def __init__(self, *arguments: str, errors: Path) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._errors = errors
        with open(errors, "ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=_end_with_us,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                if line.endswith(b"\n"):
                    self.lines.append(line.decode().rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, start: str, count: int = 1, timeout: float = 60) -> str:
        """The count-th line that begins so."""

        def found() -> list[str]:
            return [line for line in self.lines if line.startswith(start)]

        with self._changed:
            self._changed.wait_for(lambda: len(found()) >= count or self.process.poll() is not None, timeout)
            if len(found()) < count:
                tail = self._errors.read_text(errors="replace")[-3000:]
                raise AssertionError(f"no {count} lines {start!r} within {timeout} s; its last errors:\n{tail}")
            return found()[count - 1]

    def ask(self, question: str, timeout: float = 60) -> str:
        """Write a line; the line that answers it, without its first word."""
        count = sum(line.startswith(question + " ") for line in self.lines)
        assert self.process.stdin is not None
        self.process.stdin.write(question.encode() + b"\n")
        self.process.stdin.flush()
        return self.wait_for(question + " ", count + 1, timeout).removeprefix(question + " ")

    def acknowledged(self) -> set[int]:
        return {int(line.split()[1]) for line in self.lines if line.startswith("sent ")}

    def kill(self) -> None:
        self.process.kill()
        self._end()

    def stop(self, timeout: float = 60) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout)
        self._end()
        return self.process.returncode

    def _end(self) -> None:
        self.process.wait()
        self._reader.join(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class CountingApp(Process):
    def __init__(self, broker: str, data: Path, app_id: str, *options: str) -> None:
        script = str(Path(__file__).with_name("counting_app.py"))
        super().__init__(script, broker, str(data), app_id, *options, errors=data / "errors")

    def settle(self, acknowledged: set[int], timeout: float = 180) -> list[int]:
        """All numbers applied, once those acknowledged are among them, or after the timeout."""
        until = time.monotonic() + timeout
        while True:
            applied = [number for numbers in self.applied().values() for number in numbers]
            if acknowledged <= set(applied) or time.monotonic() > until:
                return applied
            self.wait_for("timer", 1 + self.lines.count("timer"))

    def applied(self) -> dict[int, list[int]]:
        """By partition: the numbers applied, in order."""
        return {int(key): numbers for key, (_, numbers) in json.loads(self.ask("report")).items()}
