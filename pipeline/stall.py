"""A stream that stands still: Faust's consumers can die slowly, alive to everybody who only asks whether they run.

Known ways: a recovery that blocks commits (faust-streaming #596), partitions that are not fetched after a rebalance
(#629). A restart mends both, so `wonted run` ends and says why.
"""

EXPLAINED = frozenset({"snapshot", "findings", "alerts", "outbox", "incidents", "control", "log"})
"""Troubles of `Stages` that wait for a disk or a broker: `status` tells of them, and a restart would not help."""


class Stall:
    """Notices what is owed and does not move for `patience` seconds, by name.

    >>> stall = Stall(60)
    >>> stall.still("partition 0", owed=0, at=5, now=0.0)
    0.0
    >>> stall.still("partition 0", owed=2, at=5, now=1000.0), stall.still("partition 0", owed=9, at=5, now=1070.0)
    (0.0, 70.0)
    >>> stall.still("partition 0", owed=8, at=6, now=1080.0)
    0.0
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._seen: dict[str, tuple[int, int, float]] = {}

    def still(self, name: str, *, owed: int, at: int, now: float) -> float:
        """Seconds for which something was owed and its place stayed the same; 0 while that is less than `patience`."""
        owed_before, before, since = self._seen.get(name, (0, at, now))
        if owed <= 0 or owed_before <= 0 or at != before:
            since = now
        self._seen[name] = (owed, at, since)
        return now - since if now - since > self.patience else 0.0

    def reset(self) -> None:
        self._seen.clear()
