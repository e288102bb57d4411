"""The process that the tests watch, from the tests' side."""

import inspect
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes.loader import Attached, attach
from probes.wire import FORK, Record

ALL = {"file", "network", "dns", "privilege"}


class Actor:
    """A process that runs functions for the tests. Start it before the probes."""

    def __init__(self) -> None:
        here = Path(__file__).parent / "actor.py"
        self.process = subprocess.Popen(
            [sys.executable, here], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        """Runs it there. It must use nothing but its arguments and the names that actor.py offers."""
        order = {
            "source": textwrap.dedent(inspect.getsource(function)),
            "name": function.__name__,
            "args": [{"hex": a.hex()} if isinstance(a, bytes) else a for a in args],
        }
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer
        return answer["value"]

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def attach_alone(families: set[str], ring_bytes: int, *actors: Actor, **more: Any) -> Attached:
    """Probes that see nobody but these actors and what they start: the rest of the machine is left out in the kernel,
    so that its floods neither fill the ring nor count as lost."""
    attached = attach(families, [], ring_bytes, **more)
    known = {actor.pid for actor in actors}
    for _ in range(3):  # a process that is forked meanwhile is found the next time; the children of those are left out
        for pid in {int(name) for name in os.listdir("/proc") if name.isdigit()} - known:
            attached.add_self(pid)
            known.add(pid)
    attached.reader.drain()
    return attached


class Watched:
    """The actor under the probes. Records are in the ring before the call that made them returns: nothing waits."""

    def __init__(self, actor: Actor, attached: Attached) -> None:
        self.actor, self.attached = actor, attached
        self.family = {actor.pid}

    def run(self, function: Callable[..., Any], *args: Any) -> tuple[Any, list[Record]]:
        """What the function returned, and the records of the actor and its descendants meanwhile."""
        self.attached.reader.drain()
        value = self.actor.do(function, *args)
        return value, self.seen()

    def seen(self) -> list[Record]:
        mine = []
        for record in self.attached.reader.drain():
            if record.type == FORK and record.pid in self.family:
                self.family.add(record.child)
            if record.pid in self.family:
                mine.append(record)
        return mine


def make_usual(attached: Attached, known: set[int], *keys: int) -> None:
    for key in keys:
        known.add(key)
        assert key and attached.counts.add(key)
    dict(attached.counts.repeats())
