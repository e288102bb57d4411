"""What taking in a file of decisions would do: each is new, the same as what is in force, or refused."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models import decisions
from models.baseline import Baseline
from models.clock import rfc3339
from models.finding import Decision
from pipeline.wide import check, said, words

SAME = {"action": None, "value": None, "scope": "value", "kind": None}
"""Fields that make two decisions on a workload the same, beside the end to the microsecond; and what nothing means."""


class Step:
    """What becomes of one decision of the file."""

    def __init__(self, outcome: str, text: str, decision: Decision | None = None) -> None:
        self.outcome, self.text, self.decision = outcome, text, decision
        """new, same, later (its workload was not seen yet), over (it has ended) or refused."""


class Imports:
    """Tries decisions on copies of the baselines."""

    def __init__(
        self,
        partitions: Mapping[str, Any],
        history: Callable[[str], list[Decision]],
        now: int,
        wide: Sequence[Mapping[str, Any]] = (),
        whole: bool = True,
    ) -> None:
        self.partitions, self.history, self.now, self.wide, self.whole = partitions, history, now, wide, whole
        """`wide`: those in force for many workloads, as `pipeline.wide.row` gives them. `whole`: no other worker holds
        workloads."""
        self.copies: dict[str, Baseline] = {}

    def plan(self, asked: list[Any]) -> list[Step]:
        return [self._step(row) for row in asked]

    def _step(self, row: Any) -> Step:
        if not isinstance(row, dict) or row.get("action") not in decisions.ACTIONS:
            return Step("refused", "expected a decision")
        name = str(row.get("workload"))
        many = str(row.get("many") or "")
        if many in ("", "later"):
            many = "" if name in self.partitions else "later"
        if many:
            return self._step_many(row, name, many)
        if name not in self.copies:
            self.copies[name] = self.partitions[name].baselines.trial(name)
        copy = self.copies[name]
        if not copy.epoch:
            return Step("refused", f"{name} has done nothing yet; import again once it has")
        until = row.get("until")
        end = rfc3339(until) if until is not None else None
        for there in decisions.rows(copy):
            if all(there[field] == (row.get(field) or SAME[field]) for field in SAME) and there["until"] == end:
                return Step("same", f"{name}: in force already ({there['id']})")
        if until is not None and until <= max(self.now, copy.now_ns):
            return Step("over", f"{name}: ended at {end}")
        id = str(row.get("id") or "")
        if not id or any(id == decision.id for decision in self.history(name)):
            id = f"de_{uuid.uuid4().hex}"  # taken back here, and decided again
        decision = self._decision(row, id, name)
        try:
            return Step("new", copy.decide(decision), decision)
        except ValueError as error:
            return Step("refused", str(error))

    def _step_many(self, row: dict[str, Any], name: str, many: str) -> Step:
        """For more than one workload, or for one that was not seen here yet: kept, and applied when they appear."""
        until = row.get("until")
        end = rfc3339(until) if until is not None else None
        for there in self.wide:
            if (there["workload"], there["many"], there["until"]) == (name, many, end) and all(
                there[field] == (row.get(field) or SAME[field]) for field in SAME
            ):
                return Step("same", f"{name}: in force already ({there['id']})")
        if until is not None and until <= self.now:
            return Step("over", f"{name}: ended at {end}")
        id = str(row.get("id") or "")
        if not id or not self.whole or any(id == d.id for n in self.partitions for d in self.history(n)):
            id = f"de_{uuid.uuid4().hex}"  # taken back somewhere, and decided again
        decision = self._decision(row, id, name, many)
        try:
            check(decision)
        except ValueError as error:
            return Step("refused", str(error))
        if many == "later":
            return Step("later", f"{name} was not seen here yet: kept until it is, and applied then", decision)
        return Step("new", f"{decision.value}: normal in {words(decision)}", decision)

    def _decision(self, row: dict[str, Any], id: str, name: str, many: str = "") -> Decision:
        return Decision(
            id=id,
            time=row.get("time") or self.now,
            action=row["action"],
            workload=name,
            value=row.get("value"),
            author=row.get("author"),
            reason=row.get("reason"),
            scope=row.get("scope") or "value",
            until=row.get("until"),
            kind=row.get("kind"),
            tokens=tuple(row["tokens"]) if row.get("tokens") else None,
            many=many,
            imported=True,
        )


def past(decision: Decision) -> dict[str, Any]:
    """A decision that is not in force any more, in the form of those that are."""
    return {
        **said(decision),
        "tokens": None,
        "means": None,
        "silenced": 0,
        "in_force": False,
    }
