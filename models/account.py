"""What a baseline says of itself: a row of `wonted workloads`, and all of it for `baseline show`."""

from typing import TYPE_CHECKING, Any

from models import decisions, drift, novelty, releases, support
from models.clock import rfc3339
from models.learning import NS, by_kind

if TYPE_CHECKING:
    from models.baseline import Baseline


def summary(b: "Baseline") -> dict[str, Any]:
    surprises = b.surprises()
    learning = b.learning
    evidence = learning.evidence(b.now, b.rule, b.budgets.total, surprises)
    eta = learning.eta_s(b.now, b.rule, b.budgets.total, surprises)
    soonest, latest = learning.eta_range_s(b.now, b.rule, b.budgets.total, surprises)
    news = by_kind(b.categories, learning.observed(b.now), b.now)
    return {
        "workload": b.name,
        "mode": learning.mode,
        "since": rfc3339(b.epoch + learning.start * NS),
        "progress": round(learning.progress(b.now, b.rule, evidence), 4),
        "evidence": round(evidence, 4),
        "eta_s": None if eta is None else round(eta),
        "eta_range_s": [None if s is None else round(s) for s in (soonest, latest)],
        "not_settling": learning.unsettled(b.now, b.rule, b.budgets.total, surprises, news),
        "not_seen": _not_seen(b),
        "kinds": {
            kind: {
                "events": b.counts.get(kind, 0),
                "last_new": b.stamp(new.last),
                "new_within_a_day": new.lately,
                "surprises_per_week": round(new.surprises, 3),
            }
            for kind, new in news.items()
        },
        "containers": len(b.containers),
        "events": sum(b.counts.values()),
        "lost": b.lost,
        "known": b.known_values(),
        "quarantined": len(b.quarantine),
        "suppressed": b.suppressed,
        "in_kernel": b.in_kernel,
        "surprises_per_week": round(surprises, 3),
        "rates_relearned_until": None if (until := b.rates.relearning) is None else rfc3339(until * 60 * NS),
        "kinds_relearned_until": drift.until(b),
        "budget": b.budgets.total,
        "false_per_week": round(b.alerts.realised(b.now, _enforced_s(b)), 3),
        **decisions.status(b),
    }


def describe(b: "Baseline") -> dict[str, Any]:
    known: dict[str, list[dict[str, Any]]] = {}
    for tokens, node in b.tree.leaves():
        known.setdefault(tokens[0], []).append(
            {
                "value": novelty.value(tokens),
                "count": node.n,
                "first": b.stamp(node.born),
                "last": b.stamp(node.last),
            }
        )
    for value, count in b.calls.rows():
        known.setdefault("sequence", []).append({"value": value, "count": count, "first": None, "last": None})
    for rows in known.values():
        rows.sort(key=lambda r: (-r["count"], r["value"]))
    parts = b.learning.parts(b.now, b.rule, b.budgets.total, b.surprises())
    return {
        **summary(b),
        "conditions": {k: round(v, 4) for k, v in parts.items()},
        "known": known,
        "forgotten": b.tree.forgotten,
        "folded": b.tree.truncated,
        "review": support.shown(b.review(), b.stamp),
        "decisions": decisions.rows(b),
        "releases": releases.rows(b),
        "drift": drift.rows(b),
        "rates": b.rates.describe(),
        "rate_levels_relearned": b.rates.reopened,
        "quarantine": [
            {
                "value": v,
                "count": e[1],
                "first": b.stamp(e[2]),
                "last": b.stamp(e[3]),
                "expected_per_week": e[4],
            }
            for v, e in sorted(b.quarantine.items())
        ],
    }


def _not_seen(b: "Baseline") -> list[str]:
    out = b.learning.not_seen(b.now)
    if len(b.containers) == 1:
        out.append("another container: a deploy or a replica")
    return out


def _enforced_s(b: "Baseline") -> float:
    ended = b.learning.ended
    return 0.0 if ended is None else float(b.now - ended)
