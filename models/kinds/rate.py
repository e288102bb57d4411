"""rate: what the sums of a workload's minutes say; `models/rates.py` keeps them and says how often to expect such."""

from typing import TYPE_CHECKING, Any

from models.finding import Finding
from models.rates import CLOCK, COLUMNS, EVIDENCE, LASTED, QUIET, TRUSTED, Closed, Ended, furthest
from models.tail import Floats
from probes.event import Event, Process, Window

if TYPE_CHECKING:
    from models.baseline import Baseline

QUIET_S = 600
"""What goes on is told once; it is over when it has not happened for so long."""
NOUNS = {
    "calls": "system calls",
    "accepts": "accepted connections",
    "queries": "DNS queries",
    "bytes_in": "bytes received",
    "bytes_out": "bytes sent",
    "failed": "failed calls",
    "denied": "denied calls",
    "held": "new file names that were held back",
    "peers": "different addresses",
    "ports": "different ports",
}
ATTACK = {"connects": "T1046", "peers": "T1046", "ports": "T1046", "bytes_out": "T1048", "queries": "T1048"}
"""Else T1496, resource hijacking."""


def mode(b: "Baseline") -> tuple[int, float]:
    """How this workload's windows are judged, and the budget per week."""
    learning = b.learning
    if learning.mode == "learning" or b.host or b.rates.relearning is not None:
        return QUIET, 0.0
    enough = learning.mode == "enforcing" or learning.observed(b.now) >= max(b.rule.evidence, 3600.0)
    trusted = enough and b.rates.table.span[b.rates.row] >= TRUSTED
    return EVIDENCE if trusted else CLOCK, b.budgets.of("rate")


def window_beyond(
    b: "Baseline", window: Window, values: Floats, deviations: Floats, process: Process | None, clean: bool
) -> Finding | None:
    """A window that `Fleet.tick` found beyond what is usual: told, or learned where it is normal all the same."""
    rates = b.rates
    column, expected = rates.table.expected(rates.row, values, deviations, _normal(b))
    expected, of = _spent(b, expected)
    if expected > of:
        if clean:
            rates.table.fold(rates.row, values)
        return None
    name, second, _ = COLUMNS[column].partition("/")
    counts = f"rate {name}" not in b.decisions.confirmed
    rates.table.shout(rates.row, column, values, deviations, counts)
    if not _begins(b, name, window.time):
        return None
    value, most, usual = (float(x) for x in (values[column], rates.most(column), rates.usual(column)))
    noun, span = NOUNS.get(name, name), "second" if second else "minute"
    hour = "" if second else " at this hour"
    why = (
        f"The most in a {span} so far was {most:,.0f}, usual{hour} is {usual:,.0f}: a {span} like this is expected "
        f"{expected:.2g} times a week{b.forced_note()}."
    )
    evidence: dict[str, Any] = {"value": value, "most": most, "usual": usual, "per": span}
    evidence["furthest"] = _furthest(b, furthest(deviations), values, deviations)
    what = f"{value:,.0f} {noun} in one {span} in {b.name}"
    return _finding(b, window, name, what, why, float(deviations[column]), expected, of, process, evidence)


def minute_beyond(b: "Baseline", ended: Ended, window: Window, process: Process | None) -> Finding | None:
    """A minute that is over and had one sum too far apart from the others: told, or learned after all."""
    rates = b.rates
    column, expected, lasted = rates.table.expected_of_minute(ended, _normal(b))
    expected, of = _spent(b, expected)
    name = COLUMNS[column]
    rates.table.resolve(ended, expected <= of, f"rate {name}" not in b.decisions.confirmed)
    if expected > of or not _begins(b, name, window.time):
        return None
    value, most, usual = float(ended.values[column]), rates.most(column), rates.usual(column)
    deviations = float((ended.lasting if lasted else ended.apart)[column])
    noun, span = NOUNS.get(name, name), f"each of {LASTED} minutes" if lasted else "one minute"
    why = (
        f"Usual at this hour is {usual:,.0f}, the most in a minute so far was {most:,.0f}; but the rest of what it "
        f"does did not grow with it: that one thing is so far apart from the others in {span} is expected "
        f"{expected:.2g} times a week{b.forced_note()}."
    )
    evidence: dict[str, Any] = {"value": value, "most": most, "usual": usual, "per": "minute", "apart": deviations}
    evidence["minutes"] = LASTED if lasted else 1
    evidence["furthest"] = _furthest(b, furthest(ended.deviations), ended.values, ended.deviations)
    what = f"{value:,.0f} {noun} in one minute in {b.name}, and no more of the rest"
    return _finding(b, window, name, what, why, deviations, expected, of, process, evidence)


def _spent(b: "Baseline", expected: float) -> tuple[float, float]:
    """What is expected, more where the budget is spent; and the budget per week."""
    return expected * (b.alerts.spent(b.now) if b.learning.mode == "enforcing" else 1.0), b.budgets.of("rate")


def _normal(b: "Baseline") -> list[int]:
    """Columns that a person accepted."""
    return [at for at, name in enumerate(COLUMNS) if f"rate {name.removesuffix('/s')}" in b.accepted]


def minute_over(b: "Baseline", closed: Closed, window: Window, process: Process | None) -> list[Finding]:
    """What the detectors that the config names say of it."""
    out = []
    how = mode(b)[0]
    for running in b.detectors:
        own = running.detector.false_alerts_per_week
        of = b.budgets.of("rate") if own is None else own
        speaks = how != QUIET and f"rate {running.name}" not in b.accepted
        found = running.beyond(of if speaks else -1.0, closed)
        if found is None or not _begins(b, running.name, window.time):
            continue
        score, expected = found
        far = _furthest(b, running.furthest(closed), closed.values, closed.deviations)
        words = ", ".join(f"{m['value']:,.0f} {m['metric']} (usually {m['usual']:,.0f})" for m in far)
        why = (
            f"{running.name} scores {score:.3g}, which is expected {expected:.2g} times a week; furthest from what "
            f"is usual at this hour: {words}{b.forced_note()}."
        )
        what = f"Unusual minute in {b.name}: {words}"
        evidence = {"detector": running.detector.name, "score": score, "furthest": far}
        out.append(_finding(b, window, running.name, what, why, score, expected, of, process, evidence))
    return out


def _furthest(b: "Baseline", columns: list[int], values: Floats, deviations: Floats) -> list[dict[str, Any]]:
    return [
        {
            "metric": COLUMNS[at],
            "value": float(values[at]),
            "usual": round(b.rates.usual(at), 2),
            "deviations": round(float(deviations[at]), 2),
        }
        for at in columns
    ]


def _begins(b: "Baseline", name: str, time_ns: int) -> bool:
    """False: it goes on, and was told. What goes on is the workload's: which of its metrics is furthest out
    changes from minute to minute."""
    now = b.seconds(time_ns)
    b.rate_told = {n: now for n, last in b.rate_told.items() if now - last < QUIET_S}
    new = name not in b.rate_told
    b.rate_told[name] = now
    return new


def _finding(
    b: "Baseline",
    window: Window,
    metric: str,
    what: str,
    why: str,
    score: float,
    expected: float,
    of: float,
    process: Process | None,
    evidence: dict[str, Any],
) -> Finding:
    who = process or Process(pid=0, vpid=0, ppid=0, comm=b.name)
    event = Event(
        time=window.time,
        workload=b.name,
        kind="rate",
        action="window",
        process=who,
        tid=0,
        uid=0,
        object=metric,
        count=1,
        lost=window.lost,
    )
    name = f"rate {metric}"
    b.alerts.told.add(name, name, b.now)
    attack = (ATTACK.get(metric, "T1496"),)
    return b.finding(
        event, "rate", "rates", None, "medium", what, why, score, expected, of, name, name, attack, evidence
    )
