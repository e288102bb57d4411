"""Where an event leaves what is known: one small function per kind that names its value, one that weighs a departure.

A value is a way through the tree, from general to special: ("file", program, "write", "data", "uploads", "<uuid>.jpg").
A weight is prior knowledge, as odds: how many benign departures of this sort to expect where one novelty of any sort is
expected. 50: almost all of them are benign (a library is read); 0.02: almost none (a secret is read). Only
`models/budget.py` turns weights into expected occurrences per week.
"""

from collections.abc import Callable
from functools import lru_cache

from models.kinds import exec, file, network, privilege
from models.kinds.view import Known, View, Weight
from models.tree import SPECIAL, Node
from probes.event import Event

Weigher = Callable[[View, int, list[Node], Known, Event], Weight]
KINDS: dict[str, Weigher] = {
    "exec": exec.weigh_exec,
    "file": file.weigh_file,
    "connect": network.weigh_connect,
    "accept": network.weigh_accept,
    "listen": network.weigh_listen,
    "dns": network.weigh_dns,
    "privilege": privilege.weigh_privilege,
}
VIEWS: dict[str, Callable[[Event], View | None]] = {
    "exec": exec.view_exec,
    "file": file.view_file,
    "connect": network.view_connect,
    "accept": network.view_accept,
    "listen": network.view_listen,
    "dns": network.view_dns,
    "privilege": privilege.view_privilege,
}


@lru_cache(maxsize=1024)
def value(tokens: tuple[str, ...]) -> str:
    """What a person types to accept or to forget it.

    >>> value(("exec", "/usr/bin/node", "!/bin/sh", "-c"))
    'exec /usr/bin/node -> /bin/sh -c'
    >>> value(("file", "/usr/bin/node", "write", "data", "<uuid>.jpg"))
    'file /usr/bin/node write /data/<uuid>.jpg'
    """
    kind, *rest = [t.lstrip(SPECIAL) for t in tokens]
    if kind == "exec":
        return f"exec {rest[0]} -> {' '.join(rest[1:])}".rstrip()
    if kind == "file":
        return f"file {rest[0]} {' '.join(rest[1:2])} /{'/'.join(rest[2:])}"
    if kind == "connect" and len(rest) == 4:
        return f"connect {rest[0]} {rest[1]} {rest[2]}:{rest[3]}"
    if kind == "listen" and len(rest) == 4:
        return f"listen {rest[0]} {rest[1]} {rest[2]}:{rest[3]}"
    if kind == "dns" and len(rest) == 2:
        return f"dns {'.'.join(p for p in (rest[1], rest[0]) if p)}"
    return " ".join((kind, *rest)).rstrip()
