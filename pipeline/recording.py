"""Recordings: the observations of the embedded log into a file, and a file through the models once more.

Reads the log's segments and changes nothing, so it works beside the running service and without one.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from config.schema import Settings
from pipeline import transport
from pipeline.topics import OBSERVATIONS
from pipeline.transport.segment import HEADER, Record, Segment

GRACE = 2.0
"""Seconds by which a batch may be written later than its events happened: where `since` begins to read."""


class NoLog(Exception):
    """There is nothing to record from; the text says why."""


class Tail:
    """One partition's records as they are appended."""

    def __init__(self, folder: Path, salt: int) -> None:
        self.folder, self.salt = folder, salt
        self.base, self.position = -1, HEADER.size

    def read(self) -> Iterator[Record]:
        """What came since the last call. A record that is just being written is left for the next one."""
        bases = sorted(int(path.stem) for path in self.folder.glob("*.log") if path.stem.isdigit())
        for base in bases:
            if base < self.base:
                continue
            if base != self.base:
                self.base, self.position = base, HEADER.size
            yield from self._segment(base != bases[-1])

    def _segment(self, whole: bool) -> Iterator[Record]:
        [path] = [path for path in self.folder.glob("*.log") if path.stem.isdigit() and int(path.stem) == self.base]
        try:
            segment = Segment.open(path, self.salt)
        except FileNotFoundError:  # its time was over
            return
        with closing(segment):
            while self.position < segment.size:
                scan = segment.read(self.position)
                yield from scan.records
                torn = scan.damaged and scan.damaged[-1][1] == segment.size and not whole
                self.position = scan.damaged[-1][0] if torn else scan.position
                if torn:
                    return


class Observations:
    """All partitions of the observations in the log of a data folder."""

    def __init__(self, settings: Settings, data: Path) -> None:
        if not transport.is_embedded(settings):
            raise NoLog(f"{settings.broker}: only the embedded log can be recorded so far")
        folder = Path(transport.broker_url(settings, data)[0].path)
        try:
            salt = int(json.loads((folder / "log.json").read_text())["salt"])
        except FileNotFoundError:
            raise NoLog(f"no log in {folder}; start the service with `wonted run`, or give its --data") from None
        self.topics, self.salt, self.tails = folder / "topics", salt, dict[Path, Tail]()

    def _tails(self) -> list[Tail]:
        """Of every partition that has been written to."""
        for topic in self.topics.iterdir():
            if unquote(topic.name) == OBSERVATIONS:
                for path in topic.glob("[0-9]*"):
                    self.tails.setdefault(path, Tail(path, self.salt))
        return list(self.tails.values())

    def skip(self) -> None:
        """To the end of what is there."""
        for _ in self.read():
            pass

    def read(self, since: float = 0.0) -> Iterator[bytes]:
        """Batches that came since the last call, in the order of their time; `since`: seconds since the epoch."""
        found = [record for tail in self._tails() for record in tail.read() if record.time >= since - GRACE]
        for record in sorted(found, key=lambda record: record.time):
            if record.value is not None:
                yield record.value

    def follow(self, until: Callable[[], bool], every: float = 0.2) -> Iterator[bytes]:
        while not until():
            yield from self.read()
            time.sleep(every)
        yield from self.read()


@dataclass(slots=True)
class Outcome:
    """What a recording gives under one set of settings."""

    batches: int = 0
    events: int = 0
    workloads: int = 0
    lost: int = 0
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Id -> its latest telling."""


def play(settings: Settings, batches: Iterator[bytes]) -> Outcome:
    """A recording through models and incidents, in the recording's own time: the same every time."""
    from models.store import Baselines
    from pipeline.incidents import Incidents
    from probes.batch import decode

    baselines, incidents, outcome = Baselines(settings), Incidents(settings), Outcome()
    for payload in batches:
        batch = decode(payload)
        outcome.batches += 1
        outcome.events += sum(event.count for event in batch.events)
        outcome.lost += sum(batch.lost.values())
        told = [
            alert
            for place, finding in enumerate(baselines.apply(batch))
            for alert in incidents.take(
                finding, batch.time, f"{batch.boot}/{batch.run}/{batch.partition}/{batch.seq}/{place}", batch.host
            )
        ]
        for alert in (*told, *incidents.tick(batch.time)):
            outcome.alerts[alert.id] = alert.to_json()
    outcome.workloads = len(baselines.names())
    return outcome
