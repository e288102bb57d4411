"""What one baseline knows and another does not; and what a release added to its own."""

from typing import TYPE_CHECKING, Any

from models import novelty

if TYPE_CHECKING:
    from models.baseline import Baseline


def between(a: "Baseline", b: "Baseline") -> list[dict[str, Any]]:
    """Values that only one of them knows: by kind, then those of the first, then by count."""
    ours, theirs = _known(a), _known(b)
    rows = [_row(a, value, known) for value, known in ours.items() if value not in theirs]
    rows += [_row(b, value, known) for value, known in theirs.items() if value not in ours]
    return sorted(rows, key=lambda row: (row["kind"], row["only_in"] != a.name, -row["count"], row["value"]))


def _known(b: "Baseline") -> dict[str, list[int]]:
    known: dict[str, list[int]] = {}
    for tokens, node in b.tree.leaves():
        one = known.setdefault(novelty.value(tokens), [0, node.born, node.last])
        one[0] += node.n
        one[1], one[2] = min(one[1], node.born), max(one[2], node.last)
    return known


def _row(b: "Baseline", value: str, known: list[int]) -> dict[str, Any]:
    return {
        "kind": value.partition(" ")[0],
        "only_in": b.name,
        "value": value,
        "count": known[0],
        "first": b.stamp(known[1]),
        "last": b.stamp(known[2]),
    }


def added(b: "Baseline") -> list[dict[str, Any]]:
    """What the latest image brought within its first hour. Raises ValueError where there was no other before it."""
    if not b.releases.changes:
        seen = ", ".join(release.name for release in b.releases.rows) or "no image"
        raise ValueError(f"{b.name} never changed its image here ({seen}); give two names to compare two workloads")
    release = b.releases.rows[-1]
    known = _known(b)
    rows = []
    for value in release.values:
        count, told = known.get(value, [0])[0], b.quarantine.get(value)
        rows.append(
            {
                "kind": value.partition(" ")[0],
                "workload": b.name,
                "image": release.image,
                "digest": release.digest,
                "since": b.stamp(release.first),
                "value": value,
                "count": count if told is None else told[1],
                "state": "told" if told is not None else "known" if count else "forgotten",
            }
        )
    return sorted(rows, key=lambda row: (row["kind"], row["value"]))
