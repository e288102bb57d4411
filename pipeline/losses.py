"""What was not seen, in words. A place is "stage.kind", as in Batch.lost."""

from collections.abc import Mapping

STAGES = {
    "ring": ("lost", "the ring to the agent was full"),
    "bucket": ("held back", "flood"),
    "reader": ("lost", "could not be read"),
    "queue": ("lost", "the worker did not take them in time"),
    "agent": ("forgotten", "the table was full"),
}
"""What a stage did to events, and why. Any other is told by its name."""


def words(lost: Mapping[str, int]) -> list[str]:
    """One sentence per stage and kind, the most first.

    >>> words({"ring.exec": 1, "bucket.file": 9000, "queue.batch": 2})
    ['held back: 9,000 file events (flood)', 'lost: 2 batches (the worker did not take them in time)', \
'lost: 1 exec event (the ring to the agent was full)']
    >>> words({"reader.decode": 3, "agent.process": 2, "shed.dns": 1, "odd": 1})
    ['lost: 3 events (could not be read)', 'forgotten: 2 processes (the table was full)', 'lost: 1 dns event (shed)', \
'lost: 1 event (odd)']
    """
    found = []
    for place, count in sorted(lost.items(), key=lambda item: -item[1]):
        if count:
            stage, _, kind = place.partition(".")
            verb, why = STAGES.get(stage, ("lost", stage))
            found.append(f"{verb}: {count:,} {_what(kind, count)} ({why})")
    return found


def _what(kind: str, count: int) -> str:
    """
    >>> _what("file", 1), _what("process", 2)
    ('file event', 'processes')
    """
    if kind in ("batch", "process"):
        return kind if count == 1 else kind + "es"
    noun = "event" if count == 1 else "events"
    return noun if kind in ("", "decode", "any") else f"{kind} {noun}"
