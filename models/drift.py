"""A kind of event that keeps bringing news where it did not before: that kind of that workload alone learns again.

Learning predicts in how many windows of ten minutes a kind will bring something new (`Categories.of_kind`). Each window
that does, and each that does not, moves a sum by its likelihood under a rate well above that one (Page's test, 1954;
for counts: Lucas, 1985). The gate of that kind opens when the sum is beyond PROOF, with enough values in enough
windows, of which some were told. People are told once; for `learn.drift` after it what is new of that kind,
and harmless by its sort, is learned. Other kinds go on as before, and so does what is not harmless.

Where the clock ended learning nothing was predicted, so nothing is above it: no gate opens. Nor does one where the kind
is locked, where people would not hear of it (snoozed), or within a week of the last.
"""

from collections.abc import Callable
from math import exp, log
from typing import TYPE_CHECKING, Any

import msgspec

from models import releases
from models.budget import TOLD_WINDOW
from models.counts import DAY, WEEK, Categories
from models.finding import Finding
from models.kinds.view import View, Weight
from models.learning import duration
from probes.event import Event

if TYPE_CHECKING:
    from models.baseline import Baseline

VALUES, WINDOWS = 12, 6
"""So many new values, in so many windows of ten minutes: an hour at least."""
TOLD = 3
"""Of them told. Where what is new is learned anyway there is no gate to open, and nothing to tell."""
TIMES, LEAST = 4.0, 1 / 12
"""Well above: so many times what was predicted, and one window in two hours at least."""
SURE = 0.75
PROOF = 12.0
"""Of a rate that is as predicted, one gate in e**12 windows at most: three years."""
PAUSE_S = 7 * DAY
"""After a gate has closed, before the same may open again."""
MOST = 512
"""Values that one gate takes in; then it closes."""
EXAMPLES = 3
NOUNS = {
    "exec": "command lines", "file": "file names", "connect": "peers", "accept": "clients", "listen": "listeners",
    "dns": "names asked for", "sequence": "system calls",
}  # fmt: skip
"""No gate opens for privilege: none of its values is harmless."""
ODD_NEIGHBOURS = ("resolver", "strange", "packed", "reverse")
PER_WEEK = WEEK / TOLD_WINDOW


class Gate(msgspec.Struct, array_like=True):
    """One kind: what it brought lately, and whether it learns again. Times are seconds since the first event."""

    since: int = 0
    """First news of what the sum is made of."""
    block: int = -1
    """Window of ten minutes with the latest news."""
    windows: int = 0
    values: int = 0
    told: int = 0
    proof: float = 0.0
    chance: float = 0.0
    """Of news in one window, as it was predicted at `since`."""
    examples: list[str] = []
    began: int = 0
    """`since` of when it opened last."""
    opened: int = -1
    until: int = -PAUSE_S
    learned: int = 0
    times: int = 0
    """How often it opened."""

    def open(self, now: int) -> bool:
        return now < self.until and self.learned < MOST

    def count(self, value: str, now: int, predicts: Callable[[], float]) -> None:
        """News. `predicts`: how many windows per week bring some; asked where a window begins.

        >>> gate = Gate()
        >>> for minute in range(0, 60, 5): gate.count(f"file {minute}", minute * 60, lambda: 2.0)
        >>> gate.windows, gate.values, gate.proof > PROOF
        (6, 12, True)
        """
        block = now // TOLD_WINDOW
        if block != self.block:
            predicted = predicts()
            low, high = self._chances(predicted) if self.proof <= 0 else self._chances(self.chance * PER_WEEK)
            self.proof += max(0, block - self.block - 1) * log((1 - high) / (1 - low)) if self.proof > 0 else 0.0
            if self.proof <= 0:  # it was quiet for long enough: this is the first again
                low, high = self._chances(predicted)
                self.since, self.windows, self.values, self.told, self.examples = now, 0, 0, 0, []
                self.proof, self.chance = 0.0, low
            self.proof += log(high / low)
            self.windows += 1
            self.block = block
        self.values += 1
        self.examples = [*self.examples[1 - EXAMPLES :], value]

    @staticmethod
    def _chances(predicted: float) -> tuple[float, float]:
        """Of news in a window: as predicted, and well above it. Of what comes in most windows, none is."""
        low = min(max(predicted / PER_WEEK, 1e-4), SURE)
        return low, max(low, min(SURE, max(TIMES * low, LEAST)))

    def ripe(self) -> bool:
        return self.proof >= PROOF and self.values >= VALUES and self.windows >= WINDOWS and self.told >= TOLD


class Drift:
    """The gates of one workload, by kind; only of kinds that brought news after learning."""

    __slots__ = ("gates",)

    def __init__(self) -> None:
        self.gates: dict[str, Gate] = {}

    def dump(self) -> dict[str, Any]:
        return {kind: msgspec.to_builtins(gate) for kind, gate in self.gates.items()}

    def load(self, rows: dict[str, Any]) -> None:
        self.gates = {kind: msgspec.convert(row, Gate) for kind, row in rows.items()}


def harmless(b: "Baseline", event: Event, view: View, depth: int, weight: Weight) -> bool:
    """May a gate learn it? By its sort alone: never secrets, start-up files, writes among code, shells, tools, new
    programs, new addresses outside, privilege, or what somebody does who came in by hand."""
    kind, actor, *_ = tokens = view.tokens
    if weight.severity not in ("low", "medium") or event.result < 0 or event.process.entered is not None:
        return False
    if kind == "dns":
        return depth == 2 and view.sort == "plain"
    if kind == "accept":
        return depth == 2
    if actor not in b.programs or kind not in NOUNS:
        return False
    if kind == "exec":
        return weight.odds >= releases.HARMLESS and releases.plain(view, depth)
    if releases.looks_around(actor):
        return False
    if kind == "connect" and view.sort == "private" and depth == 3:  # where a cluster gives new addresses
        ports = b.tree.find(tokens[:3])
        if ports is not None and any(tokens[4] in host.children for host in ports.children.values()):
            return True
    if weight.odds < releases.HARMLESS or depth < 3:
        return False
    if kind == "file":
        reads = tokens[2] in releases.READS and view.sort == "code"
        return reads or releases.plain(view, depth)
    return view.sort not in ODD_NEIGHBOURS


def verdict(
    b: "Baseline", event: Event, kind: str, value: str, expected: float, categories: Categories
) -> tuple[Finding | None] | None:
    """What a gate says of a harmless departure that learning does not know: learn it, with or without a finding; None:
    nothing."""
    if b.forced or b.learning.mode == "learning" or b.rule.drift <= 0 or b.decisions.locked(kind) is not None:
        return None
    drift, now = b.drift, b.seconds(event.time)
    of = b.budgets.of(kind)
    gate = drift.gates.get(kind)
    if gate is not None and now < gate.until + PAUSE_S:
        if not gate.open(now) or expected > of:
            return None
        gate.learned += 1
        return (None,)
    name = f"drift {kind}"
    if value in b.quarantine or name in b.decisions.confirmed:
        return None
    if gate is None:
        gate = drift.gates[kind] = Gate()
    gate.count(value, now, lambda: categories.of_kind(kind, b.learning.observed(now), now))
    gate.told += expected <= of
    if not gate.ripe() or b.decisions.snoozed(name, "drift", event.time) is not None:
        return None
    gate.began, gate.opened, gate.until, gate.learned = gate.since, now, now + int(b.rule.drift), 1
    gate.times += 1
    return (None if name in b.accepted else _finding(b, event, kind, name, gate, now),)


def _finding(b: "Baseline", event: Event, kind: str, name: str, gate: Gate, now: int) -> Finding:
    since = b.stamp(gate.since)
    of_windows = now // TOLD_WINDOW - gate.since // TOLD_WINDOW + 1
    took, chance = max(now - gate.since, TOLD_WINDOW), gate.chance
    until = b.stamp(gate.until)
    gate.proof = min(gate.proof, 60.0)
    expected = PER_WEEK * exp(-gate.proof)
    b.told.drift(kind, gate.since, now)
    b.told.add(name, name, now)
    latest = "; ".join(value if len(value) <= 100 else f"...{value[-97:]}" for value in reversed(gate.examples))
    made = b.made(
        event,
        kind=kind,
        detector="drift",
        severity="low",
        what=f"drift: {NOUNS[kind]} of {b.name} changed at {since[11:16]}: {gate.values} new in {duration(took)}",
        why=(
            f"{gate.windows} of {of_windows} windows of ten minutes brought some, {chance * of_windows:.2g} were to be "
            f"expected. What is harmless of this kind is learned again until {until[:16]}Z; all else is told as "
            f"before. The last: {latest}."
        ),
        expected=expected,
        budget=b.budgets.of(kind),
        value=name,
        attack=(),
        evidence={
            "since": since,
            "until": until,
            "new": gate.values,
            "windows": gate.windows,
            "of_windows": of_windows,
            "expected_windows": round(chance * of_windows, 4),
            "examples": list(gate.examples),
        },
    )
    gate.proof, gate.windows, gate.values, gate.told = 0.0, 0, 0, 0
    return made


def close(b: "Baseline", kind: str) -> None:
    """A person says that it was no drift."""
    gate = b.drift.gates.get(kind)
    if gate is not None:
        gate.until = min(gate.until, b.now)


def taken_in(b: "Baseline", kind: str) -> int | None:
    """Second from which on the news came that opened this kind's gate; None: it never opened."""
    gate = b.drift.gates.get(kind)
    return gate.began if gate is not None and gate.opened >= 0 else None


def rows(b: "Baseline") -> list[dict[str, Any]]:
    """Gates that opened, as data. `open`: it learns again now."""
    now = b.now
    return [
        {
            "kind": kind,
            "open": gate.open(now),
            "opened": b.stamp(gate.opened),
            "until": b.stamp(gate.until),
            "learned": gate.learned,
            "times": gate.times,
        }
        for kind, gate in sorted(b.drift.gates.items())
        if gate.opened >= 0
    ]


def until(b: "Baseline") -> dict[str, str]:
    """Kind -> end, of those that learn again now."""
    return {row["kind"]: row["until"] for row in rows(b) if row["open"]}
