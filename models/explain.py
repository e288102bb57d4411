"""One plain sentence for a finding, with the baseline's own numbers and the nearest normal; and the same as data.

    First time redis-server ran /usr/bin/wget: 0 of 24,820 runs by it; nothing new there in 6 d 4 h;
    nearest: /usr/bin/curl (12 x); expected 0.09 per week.

Every number is one that the baseline holds: visits below the deepest place that is known, when the youngest name there
came (learned, or told), visits of the nearest known name. What was forgotten to stay small is not counted, and the
sentence says so ("remembered").

Finding.evidence, beside what the detector adds (`seen`, `odds`, `place`, `held_back`, `snoozed`):
of         {"count": visits, "of": what they are, "where": the known place}: 0 of these were like this.
quiet_s    seconds since something new came at that place; null: nothing ever did.
near       at most three known names at that place: {"value", "count", "last_s"}, the nearest first.
nearest    the nearest normal in words, as the weigher of its kind puts it.
told       how often it was told before, and not learned.
release    where a new image came within the hour before, in alerts of every detector: {"image", "digest", "name",
           "after_s", "added": how many values it brought, "kinds": how many of each, "values": some of them}.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from models import programs, releases
from models.departure import place_of
from models.kinds.view import View, Weight
from models.learning import duration, several
from models.tree import SPECIAL, Node
from probes.event import Event

if TYPE_CHECKING:
    from models.baseline import Baseline

LONGEST = 200
"""Characters of a sentence; a longer one loses what matters least. Names of an attacker's make it longer at most by
NAME each."""
NAME = 60
NEAR = 3
LOOKED_AT = 200
"""Known names at a place that are compared with the new one."""
NOUNS = {
    "exec": "run",
    "file": "file event",
    "connect": "connection",
    "accept": "accepted connection",
    "listen": "listener",
    "dns": "DNS query",
    "privilege": "privileged call",
}

OPS = {
    "read": ("read", "read"),
    "list": ("listed", "listing"),
    "write": ("wrote", "write"),
    "name": ("removed or renamed", "name change"),
    "link": ("linked", "link"),
    "make runnable": ("made runnable", "chmod"),
    "rights": ("changed the rights of", "rights change"),
    "node": ("made the node", "node"),
    "times": ("changed the times of", "time change"),
    "backdate": ("set back the times of", "time change"),
    "lock": ("locked", "lock"),
    "attribute": ("changed the attributes of", "attribute change"),
    "capability": ("gave rights to", "grant of rights to file"),
}
"""What a file's operations are called: as an act, and when counted."""

ALIKE_FROM = {"exec": 2, "file": 3, "connect": 3, "accept": 1, "listen": 3, "dns": 1, "privilege": 2}
"""Depth from which the known names at a place are of the sort of the new one."""


class Place(NamedTuple):
    """The deepest known place on the way to a value."""

    noun: str
    where: str
    """By whom, or under what: ends a sentence. Empty: of the whole workload."""


def sentence(
    b: "Baseline", event: Event, view: View, expected: float, weight: Weight, value: str
) -> tuple[str, dict[str, Any]]:
    """`why`, and what it says as data."""
    nodes, depth = b.tree.walk(view.tokens)
    depth = min(depth, len(view.tokens) - 1)
    node = nodes[depth]
    place = _place(view.tokens, depth)
    visits, youngest = _below(node)
    quiet = _quiet(b, event, view, depth, youngest)
    near = _near(node, view.tokens, depth, b.now)
    held = b.quarantine.get(value)
    told = max(0, held[1] - max(1, event.count)) if held is not None else 0
    noun = f"remembered {place.noun}" if b.crowded else place.noun
    parts = [f"{_lead(b, event, view, depth, value, told)}: 0 of {several(visits, noun)}{place.where}"]
    if not visits:
        parts = [f"{_lead(b, event, view, depth, value, told)}: no {place.noun}{place.where} was ever known"]
    elif quiet is not None:
        parts.append(f"nothing new there in {duration(quiet)}" if quiet >= 60 else "new things come there now")
    release = releases.ago(b, event)
    end = [release] if release is not None else []
    if expected > 0:
        end.append(f"expected {expected:.2g} per week")
    known = str(weight.said().near)
    kin = _cut(known, 2 * NAME)
    nearest = f"nearest: {near[0]['value']} ({several(near[0]['count'], 'time')})" if near else ""
    for middle in ([kin, nearest], [kin], [nearest], []):
        text = "; ".join(part for part in [*parts, *middle, *end] if part)
        if len(text) <= LONGEST:
            break
    data: dict[str, Any] = {
        "of": {"count": visits, "of": place.noun, "where": place.where.strip()},
        "quiet_s": quiet,
        "near": near,
        "nearest": _cut(known, 4 * NAME),
        "told": told,
    }
    return text, data


def _lead(b: "Baseline", event: Event, view: View, depth: int, value: str, told: int) -> str:
    act = _act(event, view, depth)
    decided = b.decisions.on(value)
    if decided is not None and decided.action == "confirm":
        return f"{act}, which {_cut(decided.author or 'somebody')} confirmed as an incident"
    if value in b.unlearned:
        return f"{act}, which {_cut(b.unlearned[value][0] or 'somebody')} said is not normal"
    if told:
        since = duration(max(1, b.now - b.quarantine[value][2]))
        return f"{act}, told {several(told, 'time')} in {since} and never known before"
    return f"First time{' in memory' if b.crowded else ''} {act}"


def _act(event: Event, view: View, depth: int) -> str:
    """Who did what, short: the title has the rest."""
    kind, tokens = event.kind, view.tokens
    who = _name(_cut(tokens[1]))
    shown = _cut(view.path)
    if kind == "exec":
        way = " this way" if depth >= 3 else ""
        return (
            f"{who} was refused to run {shown}{way}" if tokens[3].startswith("refused") else f"{who} ran {shown}{way}"
        )
    if kind == "file":
        op = tokens[2].removesuffix(" refused")
        return f"{who} {'was refused: ' if op != tokens[2] else ''}{OPS.get(op, (op, op))[0]} {shown}"
    if kind == "connect":
        return f"{who} sent to {shown}" if event.action == "udp_send" else f"{who} reached out to {shown}"
    if kind == "listen":
        return f"{who} listened on {shown}"
    if kind == "accept":
        return f"{shown} came to port {_cut(tokens[1])}"
    if kind == "dns":
        return f"{shown} was asked for"
    return f"{who} called {_cut(tokens[2])}{' this way' if depth >= 3 else ''}"


def _place(tokens: tuple[str, ...], depth: int) -> Place:
    kind = tokens[0]
    noun = NOUNS[kind]
    if depth <= 1:
        return Place(noun, "")
    names = [_cut(token.lstrip(SPECIAL)) for token in tokens]
    who = _name(names[1])
    if kind == "exec":
        return Place(noun, f" by {who}" if depth == 2 else f" of {_name(names[2])} by {who}")
    if kind == "file":
        op = tokens[2].removesuffix(" refused")
        noun = ("refused " if op != tokens[2] else "") + OPS.get(op, (op, op))[1]
        where = f" under {_cut('/' + '/'.join(names[3:depth]))}" if depth > 3 else ""
        return Place(NOUNS[kind], f" of {who}") if depth == 2 else Place(noun, f" by {who}{where}")
    if kind == "connect" and depth >= 4:
        return Place(noun, f" of {who} to {names[3]}")
    if kind in ("connect", "listen"):
        return Place(noun if depth == 2 else f"{names[2]} {noun}", f" of {who}")
    if kind == "accept":
        return Place(noun, f" on port {names[1]}")
    if kind == "dns":
        return Place(noun, f" under {names[1]}")
    return Place(noun if depth == 2 else f"{names[2]} call", f" of {who}")


def _below(node: Node) -> tuple[int, int]:
    """Visits of a place and all below it, and when the youngest name there came (-1: there is none)."""
    visits, youngest = node.n, -1
    left = list(node.children.values())
    while left:
        child = left.pop()
        visits += child.n
        youngest = max(youngest, child.born)
        left.extend(child.children.values())
    return visits, youngest


def _quiet(b: "Baseline", event: Event, view: View, depth: int, youngest: int) -> int | None:
    """Seconds, at least, since something new came at this place: learned, taken in by a pattern, or told. None: nothing
    ever did. Births are known to the window: the sentence takes the shorter time."""
    noted = b.activity.places.get(place_of(view, depth))
    latest = max(youngest, noted[-1]) if noted else youngest
    place, mine = list(view.tokens[:depth]), list(view.tokens)
    for held in b.quarantine.values():
        if held[0][:depth] == place and held[0] != mine:
            latest = max(latest, held[2])
    return None if latest < 0 else max(0, b.seconds(event.time) - latest - (b.window_end - b.window))


def _near(node: Node, tokens: tuple[str, ...], depth: int, now: int) -> list[dict[str, Any]]:
    """Known names at the place: of the same directory first, then by likeness, then by how often they came. None where
    what is known there is of another sort: programs where a peer is new."""
    if depth < ALIKE_FROM[tokens[0]]:
        return []
    name = tokens[depth].lstrip(SPECIAL)
    folder = name.rpartition("/")[0]
    above = "/" + "/".join((*tokens[3:depth], "")) if tokens[0] == "file" else ""

    def order(item: tuple[str, Node]) -> tuple[bool, int, int, str]:
        known = item[0].lstrip(SPECIAL)
        return (not folder or known.rpartition("/")[0] != folder, -_alike(known, name), -item[1].n, known)

    some = sorted(node.children.items(), key=lambda item: (-item[1].last, item[0]))[:LOOKED_AT]
    return [
        {
            "value": _cut(above + known.lstrip(SPECIAL) + ("/" if above and child.children else "")),
            "count": _below(child)[0],
            "last_s": max(0, now - child.last),
        }
        for known, child in sorted(some, key=order)[:NEAR]
    ]


def _alike(one: str, other: str) -> int:
    """Tenths of the longer text that both begin or end with.

    >>> _alike("/usr/bin/wget", "/usr/bin/wget2"), _alike("curl", "wget")
    (9, 0)
    """
    most = min(len(one), len(other))
    head = next((i for i in range(most) if one[i] != other[i]), most)
    tail = next((i for i in range(most - head) if one[-1 - i] != other[-1 - i]), most - head)
    return 10 * (head + tail) // max(1, len(one), len(other))


def _name(program: str) -> str:
    """
    >>> _name("/usr/bin/node"), _name("(docker exec)")
    ('node', '(docker exec)')
    """
    return program if program.startswith("(") else programs.base(program)


def _cut(text: str, limit: int = NAME) -> str:
    """The end of a name says the most."""
    return text if len(text) <= limit else f"{text[: limit // 3]}...{text[-(limit - limit // 3 - 3) :]}"
