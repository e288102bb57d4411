"""All baselines of one worker: apply batches, take decisions, give and take snapshots."""

from config.schema import Settings
from models.finding import Decision, Finding
from probes.event import Batch


class CorruptSnapshot(ValueError):
    """A snapshot that cannot be trusted: wrong magic, version, length or checksum."""


class Baselines:
    """First, thin form: learns nothing yet, so that the pipeline can be built on its interface."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._seen: dict[str, int] = {}
        self._dirty: set[str] = set()

    def apply(self, batch: Batch, position: tuple[int, int] | None = None) -> list[Finding]:
        for event in batch.events:
            self._seen[event.workload] = self._seen.get(event.workload, 0) + event.count
            self._dirty.add(event.workload)
        return []

    def decide(self, decision: Decision) -> str:
        if decision.workload not in self._seen:
            raise ValueError(f"no such workload: {decision.workload}; known: {', '.join(self.names()) or 'none'}")
        return f"{decision.action} {decision.workload}"

    def snapshot(self, workload: str) -> bytes:
        self._dirty.discard(workload)
        return workload.encode()

    def restore(self, data: bytes) -> str:
        name = data.decode()
        self._seen[name] = 0
        return name

    def dirty(self) -> list[str]:
        return sorted(self._dirty)

    def names(self) -> list[str]:
        return sorted(self._seen)

    def summary(self, workload: str) -> dict:
        return {"workload": workload, "mode": "learning", "since": 0, "progress": 0.0, "evidence": 0.0, "eta_s": None,
                "events": self._seen[workload], "lost": 0}

    def describe(self, workload: str) -> dict:
        return {"workload": workload, "known": {}, "not_seen": [], "decisions": [], "quarantine": []}
