"""What simple products do, to compare with: tell whatever was never seen, as it is or with paths through patterns."""

import re
from functools import lru_cache

from probes.event import Event

_VOLATILE = (  # the first that fits
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"(?<![A-Za-z0-9])(?=[0-9a-f]*\d)[0-9a-f]{6,}(?![A-Za-z0-9])|(?<=-)(?=\w*\d)[0-9a-f]{8,}"), "<hex>"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "<date>"),
    (re.compile(r"\d+"), "<n>"),
)  # fmt: skip


def key(event: Event) -> tuple[str, ...] | None:
    """Program, what it does, and to what; None where such a product looks at nothing."""
    process = event.process
    exe = process.exe or process.comm
    kind = event.kind
    if kind == "exec" and event.action == "exec":
        parent = process.parent
        return ("exec", (parent.exe or "") if parent else "", exe)
    if kind == "file":
        return ("file", exe, "read" if event.action == "open_read" else "write", event.object or "")
    if kind == "connect" and event.remote is not None:
        return ("connect", exe, event.remote.name or event.remote.ip or "", str(event.remote.port))
    if kind in ("listen", "dns"):
        return (kind, exe, event.object or "")
    return None


def patterned(value: tuple[str, ...]) -> tuple[str, ...]:
    """
    >>> patterned(("file", "/bin/tar", "write", "/backup/2026-01-02.tgz"))
    ('file', '/bin/tar', 'write', '/backup/<date>.tgz')
    """
    return tuple(_pattern(part) if "/" in part else part for part in value)


@lru_cache(maxsize=65_536)
def _pattern(text: str) -> str:
    for volatile, name in _VOLATILE:
        text = volatile.sub(name, text)
    return text


class SeenSet:
    """Everything ever seen; a value that is not in it is told once.

    >>> seen = SeenSet(patterns=False)
    >>> seen.patterns
    False
    """

    def __init__(self, patterns: bool) -> None:
        self.patterns = patterns
        self._seen: set[tuple[str, ...]] = set()

    def new(self, event: Event) -> bool:
        value = key(event)
        if value is None:
            return False
        if self.patterns:
            value = patterned(value)
        if value in self._seen:
            return False
        self._seen.add(value)
        return True
