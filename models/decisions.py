"""What people decided about one workload: what is silent, what is always told, what is closed to learning.

accept   Silent. For good and of one value: it is learned, as if learning had seen it. For a time, or wider: silent as
         long as it is in force, counted here, and never learned.
confirm  Told at each new incident, also while learning and while snoozed; never learned.
forget   Unknown again: the next one is told.
lock     Nothing new is learned (of one kind, or of all); what is new is told, whatever the budget.
snooze   Nothing is told until a time; findings are made, marked `would_alert`. Dangers are told all the same, but for
         one that was snoozed by itself.
undo     Takes one of these back; from then on the verdicts are those from before it.

How wide an accept may be: models/scopes.py. Times are the events' own: expiry reads no clock.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from models import drift, novelty, scopes, siblings
from models.budget import TOLD_WINDOW, Told
from models.clock import rfc3339
from models.counts import DAY
from models.finding import Decision
from models.tree import SPECIAL, Node

if TYPE_CHECKING:
    from models.baseline import Baseline

ACTIONS = ("learn", "enforce", "accept", "confirm", "forget", "lock", "unlock", "snooze", "undo")
MOST = 256
"""Decisions in force per workload. More are refused: nobody keeps them true."""
RECENT = 64
"""Ids of decisions that are known to be applied, whatever became of them: a replay repeats the latest only."""
ANSWERS = 512
BACK = 8
"""Decisions on one value that can be taken back one after the other."""
VALUES = ("accept", "confirm", "forget")
"""Of these one at most is in force per value: the latest."""


class Entry(msgspec.Struct, array_like=True):
    """One decision in force."""

    id: str
    action: str
    value: str
    """"": the whole workload."""
    scope: str
    kind: str | None
    author: str | None
    reason: str | None
    time: int
    until: int | None
    tokens: list[str] | None = None
    silenced: int = 0
    """Events, or findings, that were silent because of it."""
    last: int = 0
    """When it was last of use, seconds since the workload's first event."""
    before: dict[str, Any] = {}
    """What `undo` puts back."""
    answer: str | None = None
    """false or true: what it said about an alert."""

    @property
    def passing(self) -> bool:
        """Silent, and not learned."""
        return self.action == "accept" and (self.until is not None or self.scope != "value")


class Decisions:
    """The decisions in force, by id; and those that are looked at for each unknown value."""

    __slots__ = ("confirmed", "entries", "locks", "named", "next", "passing", "recent", "snoozes")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.recent: list[str] = []
        self.named = False
        """Does anything here ask for the value of an event?"""
        self.passing: list[Entry] = []
        self.confirmed: dict[str, str] = {}
        self.locks: dict[str, str] = {}
        """Kind ("": all) -> id."""
        self.snoozes: list[Entry] = []
        self.next: int | None = None
        """When the first of them ends, nanoseconds since the epoch."""

    def _index(self) -> None:
        entries = self.entries.values()
        self.passing = [e for e in entries if e.passing]
        self.confirmed = {e.value: e.id for e in entries if e.action == "confirm"}
        self.locks = {e.kind or "": e.id for e in entries if e.action == "lock"}
        self.snoozes = [e for e in entries if e.action == "snooze"]
        self.named = bool(self.passing or self.confirmed)
        self.next = min((e.until for e in entries if e.until is not None), default=None)

    def put(self, entry: Entry) -> None:
        self.entries[entry.id] = entry
        self._index()

    def drop(self, entry: Entry) -> None:
        self.entries.pop(entry.id, None)
        self._index()

    def on(self, value: str) -> Entry | None:
        """What is in force about this value itself."""
        found = (e for e in self.entries.values() if e.value == value and e.action in VALUES and e.scope == "value")
        return next(found, None)

    # --- what a baseline asks ----------------------------------------------------------------------------------------

    def silent(self, tokens: tuple[str, ...], value: str, count: int, now: int) -> bool:
        """Accepted for a time, or by a wider decision. Counted."""
        for entry in self.passing:
            if scopes.covers(entry.scope, entry.value, entry.tokens, tokens, value):
                entry.silenced += count
                entry.last = now
                return True
        return False

    def locked(self, kind: str) -> Entry | None:
        id = self.locks.get("") or self.locks.get(kind)
        return self.entries[id] if id else None

    def snoozed(self, value: str, detector: str, time: int) -> Entry | None:
        """Whether a finding is held back from people now."""
        if value in self.confirmed:
            return None
        for entry in self.snoozes:
            applies = entry.value == value if entry.value else detector != "danger"
            if applies and entry.until is not None and time < entry.until:
                return entry
        return None

    def pick(self, id: str) -> Entry:
        """By id, or by how it begins."""
        found = [e for e in self.entries.values() if e.id == id] or [
            e for e in self.entries.values() if e.id.startswith(id)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{id} is ambiguous: {', '.join(e.id for e in found[:8])}")
        raise ValueError(f"no decision {id} is in force here; `wonted baseline decisions` lists them")

    # --- state -------------------------------------------------------------------------------------------------------

    def adopt(self, accepted: dict[str, list[Any]], unlearned: dict[str, list[Any]]) -> None:
        """From a snapshot of an earlier version, which kept only who said what of which value."""
        for action, table in (("accept", accepted), ("forget", unlearned)):
            for value, (author, reason, time, id) in table.items():
                self.entries[str(id)] = Entry(str(id), action, value, "value", None, author, reason, time, None)
        self._index()

    def dump(self) -> list[Any]:
        return [msgspec.to_builtins(list(self.entries.values())), self.recent]

    def load(self, row: list[Any]) -> None:
        self.entries = {entry.id: entry for entry in msgspec.convert(row[0], list[Entry])}
        self.recent = list(row[1])
        self._index()


# --- taking decisions ------------------------------------------------------------------------------------------------


def take(b: "Baseline", decision: Decision) -> str:
    """Carry out a decision about values, or take one back. The answer is for a person."""
    d, action, value = b.decisions, decision.action, decision.value
    if action == "undo":
        if not value:
            raise ValueError("undo needs the id of a decision; `wonted baseline decisions` lists them")
        entry = d.pick(value)
        back(b, entry)
        return f"{b.name}: {said(entry)} is taken back"
    if action == "unlock":
        closed = [e for e in d.entries.values() if e.action == "lock" and decision.kind in (None, e.kind)]
        if not closed:
            raise ValueError(f"{b.name} is not locked" + (f" for {decision.kind}" if decision.kind else ""))
        for entry in closed:
            d.drop(entry)
        return f"{b.name}: what is new is learned again ({', '.join(e.kind or 'all kinds' for e in closed)})"
    if len(d.entries) >= MOST:
        raise ValueError(f"{b.name} has {MOST} decisions in force; undo some, or learn it again")
    if decision.until is not None and decision.until <= max(b.now_ns, decision.time):
        raise ValueError(f"{action} until {rfc3339(decision.until)}: that is over")
    scope = decision.scope if action == "accept" else "value"
    entry = Entry(
        decision.id, action, value or "", scope, decision.kind, decision.author, decision.reason, decision.time,
        decision.until, list(decision.tokens) if decision.tokens else None,
    )  # fmt: skip
    return {"accept": _accept, "confirm": _confirm, "forget": _forget, "lock": _lock, "snooze": _snooze}[action](
        b, entry, decision
    )


KINDS = (*novelty.KINDS, "danger", "rate", "sequence", "drift")


def kind_of(value: str) -> str:
    """Raises ValueError where it is none."""
    kind = value.partition(" ")[0]
    if kind not in KINDS:
        raise ValueError(f"no such value: {value}; expected one that begins with {', '.join(KINDS)}")
    return kind


def _value(b: "Baseline", entry: Entry) -> str:
    if not entry.value:
        raise ValueError(f"{entry.action} needs a value; see `wonted baseline show {b.name}`")
    kind = entry.value.partition(" ")[0]
    if kind not in KINDS:
        raise ValueError(unknown(entry.value, b.quarantine))
    return kind


def _accept(b: "Baseline", entry: Entry, decision: Decision) -> str:
    d, value = b.decisions, entry.value
    _value(b, entry)
    if (id := d.confirmed.get(value)) is not None and entry.scope == "value":
        who = d.entries[id].author or "somebody"
        raise ValueError(f"{value} was confirmed as an incident by {who} ({id}); undo that first")
    if entry.tokens is None and entry.scope != "pattern":
        entry.tokens = tokens_of(b, value)
    scopes.check(entry.scope, value, entry.tokens)
    answered = decision.alert is not None or value in b.quarantine or value in b.told.values
    if entry.scope == "value":
        _supersede(b, entry)
        b.accepted[value] = [entry.author, entry.reason, entry.time, entry.id]
        entry.before["unlearned"] = b.unlearned.pop(value, None)
        entry.before["told"] = b.told.values.get(value)
        b.told.forget(value)
    if entry.scope == "value" and entry.until is None:
        _known(b, entry)
    if answered and not decision.imported:
        _answer(b, entry, "false")
    d.put(entry)
    if entry.scope == "value" and entry.until is None:
        return f"{b.name}: {value} is normal now"
    until = f" until {rfc3339(entry.until)}" if entry.until is not None else ""
    return f"{b.name}: silent from now on{until}, and not learned: {scopes.words(entry.scope, value, entry.tokens)}"


def _known(b: "Baseline", entry: Entry) -> None:
    """Accepted for good: known as if learning had seen it."""
    told = b.quarantine.pop(entry.value, None)
    if told is None:
        return
    tokens = tuple(told[0])
    entry.tokens = list(tokens)
    entry.before["quarantine"] = told
    if tokens[0] == "sequence":
        b.calls.accept(entry.value)
    else:
        _learned(b, entry, tokens, told[1])


def learn(b: "Baseline", tokens: tuple[str, ...], value: str, count: int) -> None:
    """The first event of a value that a person accepted before it was seen. Says nothing about how often new things
    come: it was no surprise."""
    entry = b.decisions.on(value)
    if entry is not None:
        entry.tokens = list(tokens)
        _learned(b, entry, tokens, count)


def _learned(b: "Baseline", entry: Entry, tokens: tuple[str, ...], count: int) -> None:
    entry.before.setdefault("knew", [p for p in programs_of(tokens) if p in b.programs])
    leaf = b.tree.find(tokens)
    entry.before.setdefault("leaf", bool(leaf is not None and leaf.n))
    node = b.tree.learn(tokens, b.window)
    node.n += count
    b.programs.update(programs_of(tokens))


def _confirm(b: "Baseline", entry: Entry, decision: Decision) -> str:
    _value(b, entry)
    _supersede(b, entry)
    _unlearn(b, entry)
    _mark(b, entry)
    entry.before["excused"] = excuse(b.told, entry.value)
    entry.before["counted"] = b.calls.excuse(entry.value)
    if entry.value.startswith("rate ") and entry.before["excused"] is not None:
        told_s = b.epoch // 1_000_000_000 + entry.before["excused"][0] * TOLD_WINDOW
        b.rates.excuse(entry.value.removeprefix("rate "), told_s // DAY)
    if decision.alert is not None or (entry.value in b.quarantine and not decision.imported):
        _answer(b, entry, "true")
    b.decisions.put(entry)
    return f"{b.name}: {entry.value} is confirmed: never learned, and told at each new incident"


def _forget(b: "Baseline", entry: Entry, decision: Decision) -> str:
    if not entry.value:
        raise ValueError(f"forget needs a value; see `wonted baseline show {b.name}`")
    was = b.decisions.on(entry.value) is not None or entry.value in b.accepted or entry.value in b.quarantine
    was = was or (entry.value.startswith("drift ") and drift.taken_in(b, entry.value[6:]) is not None)
    if entry.value.startswith("sequence "):
        entry.before["called"] = b.calls.forget(entry.value)
        was = was or entry.before["called"]
    if not _leaves(b, entry.value) and not was and not (decision.imported and _value(b, entry)):
        raise ValueError(unknown(entry.value, [novelty.value(t) for t, _ in b.tree.leaves()]))
    if entry.value in b.decisions.confirmed:
        return f"{b.name}: {entry.value} is a confirmed incident: it is unknown already"
    _supersede(b, entry)
    _unlearn(b, entry)
    _mark(b, entry)
    b.decisions.put(entry)
    return f"{b.name}: {entry.value} is unknown again"


def _mark(b: "Baseline", entry: Entry) -> None:
    """Told whatever else covers it: a pattern that learning made, or one of a person's. Nor is it lent to siblings."""
    if b.kin is not None:
        b.kin.forgot(b.name, siblings.mark(entry.value))
    if entry.value.partition(" ")[0] in (*novelty.KINDS, "sequence"):
        entry.before["unlearned"] = b.unlearned.get(entry.value)
        b.unlearned[entry.value] = [entry.author, entry.reason, entry.time, entry.id]


def _lock(b: "Baseline", entry: Entry, _: Decision) -> str:
    kinds = (*novelty.KINDS, "sequence", "rate")
    if entry.kind is not None and entry.kind not in kinds:
        raise ValueError(f"kind {entry.kind!r}: expected one of {', '.join(kinds)}")
    id = b.decisions.locks.get("") or b.decisions.locks.get(entry.kind or "")
    if id is not None:
        held = b.decisions.entries[id]
        raise ValueError(
            f"{b.name} is locked ({held.kind or 'all kinds'}) by {held.author or 'somebody'} already ({id})"
        )
    entry.value = ""
    b.decisions.put(entry)
    what = f"of kind {entry.kind}" if entry.kind else "of any kind"
    early = "; it is still learning, so expect many alerts" if b.learning.mode == "learning" else ""
    return f"{b.name} is locked: nothing new {what} is learned until it is unlocked, and what is new is told{early}"


def _snooze(b: "Baseline", entry: Entry, _: Decision) -> str:
    if entry.until is None:
        raise ValueError("snooze needs an end: --for 2h")
    if entry.value in b.decisions.confirmed:
        raise ValueError(f"{entry.value} is a confirmed incident: it is always told")
    b.decisions.put(entry)
    but = "" if entry.value else " (dangers are told all the same)"
    what = entry.value or "this workload"
    return f"{b.name}: nothing is told of {what} until {rfc3339(entry.until)}{but}; `wonted alerts` has it all"


# --- taking them back ------------------------------------------------------------------------------------------------


def expire(b: "Baseline", now_ns: int) -> None:
    """What has ended by now. What it said about an alert stays said."""
    for entry in [e for e in b.decisions.entries.values() if e.until is not None and e.until <= now_ns]:
        back(b, entry, ended=True)


def back(b: "Baseline", entry: Entry, ended: bool = False) -> None:
    """As if it had not been decided."""
    before, value = entry.before, entry.value
    b.decisions.drop(entry)
    b.fresh()
    if entry.answer is not None and not ended:
        _unanswer(b, entry)
    if entry.scope != "value" or entry.action in ("lock", "snooze"):
        return
    b.accepted.pop(value, None)
    b.unlearned.pop(value, None)
    if entry.action == "accept":
        if entry.until is None and before.get("leaf") is False:
            _unknown_again(b, entry)
        if value.startswith("sequence ") and before.get("quarantine") is not None:
            b.calls.forget(value)
        if (window := before.get("told")) is not None:
            b.told.values[value] = window
    else:
        if before.get("called"):
            b.calls.accept(value)
        for tokens, row in before.get("leaves", ()):
            node = b.tree.learn(tuple(tokens), row[1])
            node.n, node.born, node.last, node.many = node.n + row[0], row[1], max(row[2], node.last), bool(row[3])
        b.programs.update(before.get("programs", ()))
        if before.get("leaves") and not before.get("held"):
            b.quarantine.pop(value, None)  # told only because of this decision
        unexcuse(b.told, value, before.get("excused"))
        b.calls.count(value, before.get("counted"))
    if (quarantined := before.get("quarantine")) is not None:
        b.quarantine[value] = quarantined
    if before.get("unlearned") is not None:
        b.unlearned[value] = before["unlearned"]
    if (earlier := before.get("entry")) is not None:
        _again(b, msgspec.convert(earlier, Entry))


def _unknown_again(b: "Baseline", entry: Entry) -> None:
    tokens = tuple(entry.tokens or ())
    if not b.tree.remove(tokens) and b.tree.find(tokens) is not None:  # a pattern took it in meanwhile
        b.unlearned[entry.value] = [entry.author, "undone", entry.time, entry.id]
    named = {p for other, _ in b.tree.leaves() for p in programs_of(other)}
    b.programs -= {p for p in programs_of(tokens) if p not in entry.before.get("knew", ()) and p not in named}


def _again(b: "Baseline", entry: Entry) -> None:
    """Put back in force what another decision took the place of."""
    if entry.until is not None and entry.until <= b.now_ns:
        return
    said = [entry.author, entry.reason, entry.time, entry.id]
    if entry.action == "accept":
        b.accepted[entry.value] = said
    elif entry.value.partition(" ")[0] in (*novelty.KINDS, "sequence"):
        b.unlearned[entry.value] = said
    if entry.answer is not None:
        _answer(b, entry, entry.answer)
    b.decisions.put(entry)


def _supersede(b: "Baseline", entry: Entry) -> None:
    """One decision is in force per value: the latest."""
    b.fresh()
    entry.before["held"] = entry.value in b.quarantine
    earlier = b.decisions.on(entry.value)
    if earlier is None:
        return
    if earlier.answer is not None:
        _unanswer(b, earlier)
    b.decisions.drop(earlier)
    b.accepted.pop(entry.value, None)
    entry.before["depth"] = earlier.before.get("depth", 0) + 1
    if entry.before["depth"] > BACK:
        entry.before["depth"] = 0
        earlier.before.pop("entry", None)
    entry.before["entry"] = msgspec.to_builtins(earlier)


def _leaves(b: "Baseline", value: str) -> list[tuple[tuple[str, ...], Node]]:
    """What the value stands for; of a drift: what that kind has learned since, but for what people accepted."""
    if value.startswith("drift "):
        kind = value.removeprefix("drift ")
        since = drift.taken_in(b, kind)
        return [
            (tokens, node) for tokens, node in b.tree.leaves()
            if since is not None and tokens[0] == kind and node.born >= since - TOLD_WINDOW
            and novelty.value(tokens) not in b.accepted
        ]  # fmt: skip
    return [(tokens, node) for tokens, node in b.tree.leaves() if novelty.value(tokens) == value]


def _unlearn(b: "Baseline", entry: Entry) -> None:
    """Out of the tree, with what is needed to put it back."""
    b.accepted.pop(entry.value, None)
    hits = _leaves(b, entry.value)
    if entry.value.startswith("drift "):
        drift.close(b, entry.value.removeprefix("drift "))
    entry.before["leaves"] = [[list(t), [n.n, n.born, n.last, int(n.many)]] for t, n in hits]
    if entry.tokens is None:
        entry.tokens = list(hits[0][0]) if hits else tokens_of(b, entry.value)
    if not hits:
        return
    knew = set(b.programs)
    for tokens, _ in hits:
        b.tree.remove(tokens)
    b.programs = {p for tokens, _ in b.tree.leaves() for p in programs_of(tokens)}
    entry.before["programs"] = sorted(knew - b.programs)


def tokens_of(b: "Baseline", value: str) -> list[str] | None:
    """What a value stands for, where it is known here or was told."""
    if (held := b.quarantine.get(value)) is not None:
        return list(held[0])
    hits = _leaves(b, value)
    return list(hits[0][0]) if hits else None


def programs_of(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """The programs that a value makes known."""
    if tokens and tokens[0] == "exec":
        return tokens[1], tokens[2].lstrip(SPECIAL)
    return (tokens[1],) if tokens and tokens[0] in ("file", "connect", "listen", "privilege") else ()


# --- what the answers say --------------------------------------------------------------------------------------------


def _answer(b: "Baseline", entry: Entry, answer: str) -> None:
    entry.answer = answer
    times = b.answers[answer]
    times.append(b.seconds(entry.time))
    del times[:-ANSWERS]


def _unanswer(b: "Baseline", entry: Entry) -> None:
    times, at = b.answers[entry.answer or "false"], b.seconds(entry.time)
    if at in times:
        times.remove(at)


def excuse(told: Told, value: str) -> list[Any] | None:
    """An alert about what is confirmed was no false alert: it makes no other less likely. What was taken out."""
    window = told.values.pop(value, None)
    if window is None:
        return None
    if window in told.values.values():  # others were told within the same ten minutes
        return [window, False, []]
    places = [place for place, windows in told.places.items() if window in windows]
    for place in places:
        told.places[place].remove(window)
    counted = window in told.alerts
    if counted:
        told.alerts.remove(window)
    return [window, counted, places]


def unexcuse(told: Told, value: str, excused: list[Any] | None) -> None:
    if excused is None:
        return
    window, counted, places = excused
    told.values[value] = window
    if counted and window not in told.alerts:
        told.alerts = sorted([*told.alerts, window])
    for place in places:
        told.places[place] = sorted({*told.places.get(place, ()), window})


# --- what people see -------------------------------------------------------------------------------------------------


def said(entry: Entry) -> str:
    """
    >>> said(Entry("de_1", "lock", "", "value", "exec", "ana", None, 0, None))
    'lock of exec by ana (de_1)'
    """
    what = entry.value or entry.kind or ("all kinds" if entry.action == "lock" else "the workload")
    return f"{entry.action} of {what}{f' by {entry.author}' if entry.author else ''} ({entry.id})"


def rows(b: "Baseline") -> list[dict[str, Any]]:
    """Each decision in force as data: what `baseline decisions --json` prints, and what an export holds."""
    return [
        {
            "id": e.id,
            "workload": b.name,
            "action": e.action,
            "value": e.value or None,
            "scope": e.scope,
            "kind": e.kind,
            "author": e.author,
            "reason": e.reason,
            "time": rfc3339(e.time),
            "until": None if e.until is None else rfc3339(e.until),
            "tokens": e.tokens if e.scope in ("place", "anyone") else None,
            "means": scopes.words(e.scope, e.value, e.tokens) if e.action == "accept" else None,
            "silenced": e.silenced,
        }
        for e in sorted(b.decisions.entries.values(), key=lambda e: (e.action, e.value, e.kind or "", e.time, e.id))
    ]


def status(b: "Baseline") -> dict[str, Any]:
    """For the summary of a workload."""
    whole = [e.until for e in b.decisions.snoozes if not e.value and e.until is not None]
    return {
        "false_alerts": len(b.answers["false"]),
        "confirmed": len(b.answers["true"]),
        "locked": sorted(kind or "all" for kind in b.decisions.locks),
        "snoozed": rfc3339(max(whole)) if whole else None,
        "snoozed_values": sum(1 for e in b.decisions.snoozes if e.value),
        "decisions": len(b.decisions.entries),
    }


def unknown(value: str, candidates: Any) -> str:
    import difflib

    near = difflib.get_close_matches(value, list(candidates), 3, 0.4)
    return f"no such value: {value}; nearest: {'; '.join(near) if near else 'none'}"
