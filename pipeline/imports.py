"""What taking in a file of decisions would do: each is new, the same as what is in force, or refused."""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from models import decisions
from models.baseline import Baseline
from models.finding import Decision
from pipeline.alert import rfc3339

SAME = ("action", "value", "scope", "kind")
"""Fields that make two decisions on a workload the same, beside the end to the microsecond."""


class Step:
    """What becomes of one decision of the file."""

    def __init__(self, outcome: str, text: str, decision: Decision | None = None) -> None:
        self.outcome, self.text, self.decision = outcome, text, decision
        """new, same, over (it has ended) or refused."""


class Imports:
    """Tries decisions on copies of the baselines."""

    def __init__(self, partitions: Mapping[str, Any], history: Callable[[str], list[Decision]], now: int) -> None:
        self.partitions, self.history, self.now = partitions, history, now
        self.copies: dict[str, Baseline] = {}

    def plan(self, asked: list[Any]) -> list[Step]:
        return [self._step(row) for row in asked]

    def _step(self, row: Any) -> Step:
        if not isinstance(row, dict) or row.get("action") not in decisions.ACTIONS:
            return Step("refused", "expected a decision")
        name = str(row.get("workload"))
        if name not in self.partitions:
            return Step("refused", f"no workload {name} here yet; import again once it was seen, or take it out")
        if name not in self.copies:
            self.copies[name] = self.partitions[name].baselines.trial(name)
        copy = self.copies[name]
        if not copy.epoch:
            return Step("refused", f"{name} has done nothing yet; import again once it has")
        until = row.get("until")
        end = rfc3339(until) if until is not None else None
        for there in decisions.rows(copy):
            if all(there[field] == (row.get(field) or None) for field in SAME) and there["until"] == end:
                return Step("same", f"{name}: in force already ({there['id']})")
        if until is not None and until <= max(self.now, copy.now_ns):
            return Step("over", f"{name}: ended at {end}")
        id = str(row.get("id") or "")
        if not id or any(id == decision.id for decision in self.history(name)):
            id = f"de_{uuid.uuid4().hex}"  # taken back here, and decided again
        decision = Decision(
            id=id,
            time=row.get("time") or self.now,
            action=row["action"],
            workload=name,
            value=row.get("value"),
            author=row.get("author"),
            reason=row.get("reason"),
            scope=row.get("scope") or "value",
            until=until,
            kind=row.get("kind"),
            tokens=tuple(row["tokens"]) if row.get("tokens") else None,
            imported=True,
        )
        try:
            return Step("new", copy.decide(decision), decision)
        except ValueError as error:
            return Step("refused", str(error))


def past(decision: Decision) -> dict[str, Any]:
    """A decision that is not in force any more, in the form of those that are."""
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
        "tokens": None,
        "means": None,
        "silenced": 0,
        "in_force": False,
    }
