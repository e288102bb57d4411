"""Decisions for more than one workload: all that match a pattern, all of an image, or one that was not seen yet.

Each partition keeps them beside its baselines (`s/PARTITION/ID` in the table) and makes of each one decision per
workload, under the same id: for those that it knows at once, for later ones when they first appear. So one `undo` takes
back all, and each workload's baseline, list and snapshot hold it like any other.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from models import decisions, scopes
from models.clock import rfc3339
from models.finding import Decision
from models.siblings import repository

MANY = ("workloads", "image", "later")
MOST = 1000
"""Per partition. More are refused."""


def check(decision: Decision) -> None:
    """Raises ValueError where it may not be for many."""
    if decision.many == "later" or decision.action == "undo":
        return
    if decision.action != "accept":
        raise ValueError(f"{decision.action} is for one workload; only accept may be for many")
    value, tokens = decision.value or "", list(decision.tokens) if decision.tokens else None
    kind = decisions.kind_of(value)
    if kind in ("danger", "rate", "drift"):
        raise ValueError(f"{kind} values are accepted in one workload at a time; danger.allow in the config is wider")
    scopes.check(decision.scope, value, tokens)
    literal = sum(c not in "*?[]!" for c in decision.workload)
    if literal < (scopes.LITERAL if decision.many == "workloads" else 1):
        raise ValueError(f"{decision.workload!r} is every workload; say at least {scopes.LITERAL} letters of the names")


def words(decision: Decision) -> str:
    """
    >>> words(Decision("de_1", 0, "accept", "shop/*", "exec a -> b", many="workloads"))
    'all workloads that match shop/*'
    """
    if decision.many == "image":
        return f"all workloads of the image {decision.workload}"
    return f"all workloads that match {decision.workload}" if decision.many == "workloads" else decision.workload


class Wide:
    """Those of one partition."""

    def __init__(self) -> None:
        self.entries: dict[str, Decision] = {}
        self._met: dict[str, tuple[int, str | None]] = {}
        """Workload -> how many decisions, and the image, when it was last looked at."""
        self._changes = 0

    def load(self, table: Mapping[bytes, bytes], number: int) -> None:
        """Raises ValueError where one cannot be read; the others are there."""
        error: ValueError | None = None
        for key, value in table.items():
            if key.startswith(b"s/%d/" % number):
                try:
                    decision = msgspec.msgpack.decode(value, type=Decision)
                    self.entries[decision.id] = decision
                except msgspec.DecodeError as problem:
                    error = ValueError(str(problem))
        if error is not None:
            raise error

    def put(self, decision: Decision) -> None:
        if len(self.entries) >= MOST and decision.id not in self.entries:
            raise ValueError(f"{MOST} decisions for many workloads are in force; undo some")
        self.entries[decision.id] = decision
        self._changes += 1

    def drop(self, id: str) -> bool:
        return self.entries.pop(id, None) is not None

    def due(self, name: str, image: str | None, now: int) -> list[Decision]:
        """Those for this workload, where it, its image or they are new. `image`: its latest, as it is named."""
        seen = (self._changes, image)
        if not self.entries or self._met.get(name) == seen:
            return []
        self._met[name] = seen
        return [
            decision for decision in self.entries.values() if covers(decision, name, image) and alive(decision, now)
        ]

    def over(self, now: int) -> list[str]:
        """Ids of those that have ended."""
        return [id for id, decision in self.entries.items() if not alive(decision, now)]


def alive(decision: Decision, now: int) -> bool:
    return decision.until is None or decision.until > now


def covers(decision: Decision, name: str, image: str | None) -> bool:
    """
    >>> one = Decision("de_1", 0, "accept", "registry/shop", "exec a -> b", many="image")
    >>> covers(one, "web", "registry/shop:2.14"), covers(one, "web", None)
    (True, False)
    """
    if decision.many == "image":
        return image is not None and repository(image) == decision.workload
    return name == decision.workload if decision.many == "later" else fnmatchcase(name, decision.workload)


def said(decision: Decision) -> dict[str, Any]:
    """What was decided, as data, by the names of `models.decisions.rows`."""
    return {
        "id": decision.id,
        "workload": decision.workload,
        "action": decision.action,
        "value": decision.value,
        "scope": decision.scope,
        "kind": decision.kind,
        "author": decision.author,
        "reason": decision.reason,
        "time": rfc3339(decision.time),
        "until": None if decision.until is None else rfc3339(decision.until),
    }


def row(decision: Decision) -> dict[str, Any]:
    """One in force for many workloads."""
    return {
        "id": decision.id,
        "workload": decision.workload,
        "many": decision.many,
        **said(decision),
        "tokens": list(decision.tokens) if decision.tokens and decision.scope in ("place", "anyone") else None,
        "means": f"{decision.value or decision.action}, in {words(decision)}",
        "silenced": 0,
        "in_force": True,
    }
