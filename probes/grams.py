"""Which six-grams a workload has shown, beyond the life of one cgroup: a container that starts again begins with them.

The kernel keeps one bitmap per cgroup (struct grams in events.h), empty for each new one. What it holds when the cgroup
goes is kept here; what is kept here, or what the workload's other cgroups hold, goes into the next one's.
"""

from typing import Protocol

MOST = 128
"""Workloads whose bitmaps are kept, of 8 KiB: the one whose cgroup went longest ago is let go first."""
FELLOWS = 4
"""Of so many living cgroups of the workload a new one takes what they have shown."""
ALONE_NS = 3600 * 1_000_000_000
"""So long a cgroup notes what it does before anything in it is a miss, where nothing was kept of its workload: after a
start of the agent all bitmaps are empty, and what is new to them says nothing."""


class Bitmaps(Protocol):
    def grams(self, slot: int) -> bytes: ...

    def show(self, slot: int, grams: bytes) -> None: ...

    def enforce(self, slot: int, on: bool) -> None: ...


class Named(Protocol):
    """A Scope: its name may be found out later than its slot."""

    workload: str


class Grams:
    """Of one agent: which slots are whose, what is kept, and which of them only note so far."""

    def __init__(self) -> None:
        self.learned: set[str] = set()
        """Workloads that learn no more: their new six-grams are misses."""
        self.kept: dict[str, int] = {}
        """Workload -> bitmap, as an integer."""
        self.noting: dict[int, int] = {}
        """Slot -> when (ns) it has seen enough by itself."""
        self._of: dict[int, tuple[Named, str]] = {}
        """Slot -> whose, and by which name it was met."""

    def met(self, kernel: Bitmaps, slot: int, scope: Named, now: int) -> None:
        """A cgroup of this workload was given this slot."""
        workload = scope.workload
        known = self.kept.get(workload, 0)
        fellows = [s for s in self._slots(workload) if s != slot and s not in self.noting]
        for fellow in fellows[:FELLOWS]:
            known |= _number(kernel.grams(fellow))
        self._of[slot] = scope, workload
        self.noting.pop(slot, None)
        if known:
            kernel.show(slot, known.to_bytes(len(kernel.grams(slot)), "little"))
        elif workload in self.learned:
            self.noting[slot] = now + ALONE_NS
        kernel.enforce(slot, workload in self.learned and slot not in self.noting)

    def mode(self, kernel: Bitmaps, workload: str, learning: bool) -> None:
        """It learns from now on, or no more: then what one cgroup of it has shown is known of all."""
        (self.learned.discard if learning else self.learned.add)(workload)
        slots = self._slots(workload)
        if not learning and len(slots) > 1:
            whole = 0
            for slot in slots:
                whole |= _number(kernel.grams(slot))
            for slot in slots:
                kernel.show(slot, whole.to_bytes(len(kernel.grams(slot)), "little"))
        for slot in slots:
            kernel.enforce(slot, not learning and slot not in self.noting)

    def gone(self, kernel: Bitmaps, slot: int) -> None:
        """Its cgroup is gone; the kernel still has what it showed."""
        scope, _ = self._of.pop(slot, (None, ""))
        self.noting.pop(slot, None)
        if scope is None or not (shown := _number(kernel.grams(slot))):
            return
        workload = scope.workload
        self.kept[workload] = self.kept.pop(workload, 0) | shown
        if len(self.kept) > MOST:
            del self.kept[next(iter(self.kept))]

    def tick(self, kernel: Bitmaps, now: int) -> None:
        """What has noted for long enough is judged from now on, and what has another name now by that."""
        for slot in [slot for slot, until in self.noting.items() if now >= until]:
            del self.noting[slot]
            kernel.enforce(slot, self._of[slot][1] in self.learned)
        for slot, scope in [(slot, scope) for slot, (scope, name) in self._of.items() if scope.workload != name]:
            self.met(kernel, slot, scope, now)

    def _slots(self, workload: str) -> list[int]:
        return [slot for slot, (_, name) in self._of.items() if name == workload]


def _number(bitmap: bytes) -> int:
    return int.from_bytes(bitmap, "little")
