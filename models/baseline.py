"""What one workload normally does, and what of that an event leaves."""

import zlib
from collections.abc import Hashable, Iterator
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from river import base

from config.schema import Allow, Models
from models import budget as budgets
from models import danger, decisions, drift, explain, host, novelty, paths, programs, releases, siblings, support
from models.budget import NOTHING_LENT, Activity, AlertBudget, Lent
from models.clock import rfc3339
from models.counts import DAY, Categories, Once
from models.departure import actor_of, category_of, place_of, program_of, spawned
from models.finding import SEVERITIES, Decision, Finding
from models.kinds import file, network
from models.kinds.sequence import ProcessCalls
from models.kinds.view import REFUSED, Known, View, Weight, who
from models.learning import NS, Learning, Rule
from models.rates import Fleet, Rates
from models.tree import SPECIAL, Node, Tree
from models.usual import Host, Usual, sensitive, volatile
from probes.event import Container, Event

if TYPE_CHECKING:
    from models.detectors import Running

CACHE = 4096
"""Raw events whose place in the tree is remembered, per workload. Only speed depends on it."""
PASSING = 64
"""Programs known only as one of many, the latest of which are remembered."""
LEAST = 300
"""Nodes that a tree may always have, however long their names are."""
QUARANTINE = 256
PASSED = 1024
"""Keys of events that are not looked at, seen once."""
ALTERED = 64
DANGER_PER_SECOND = 10
NOVEL_PER_SECOND = 100
REHEARSED, TRIED = 20, 200
"""While learning, at most so many findings and so many tries an hour of what would be told."""
GRACE_S = 20
"""A start that learning never saw: what known programs do this long after it is learned, not told."""
NOT_AT_A_START = ("writable", "scratch", "hidden", "shell", "download", "network")
SPAWNED = 0.7
"""Odds of a plain new program of a parent that starts several; a fortnight of looking cannot have seen monthly jobs."""
OPENS = frozenset({"open_read", "open_write", "create"})


class Asleep(NamedTuple):
    """What a baseline that nothing asks for knows."""

    state: bytes
    """Tree, activity, keys by number of their node, and `_passed`; deflated."""
    values: int
    keys: int
    hosts: list[Host]


_raw = msgspec.msgpack.Decoder(list[msgspec.Raw])


class Baseline(base.AnomalyDetector):
    """The baseline of one workload, as a River anomaly detector over events.

    `score_one({"event": e})` is the weight of evidence against an event, in bits: log2 of weeks to wait for something
    at least this unusual; below 1 for what is known. `learn_one({"event": e})` makes it known. `observe` is what the
    product runs.

    Parameters: `name`: the workload. `rule`: what ends learning. `models`: budgets. `allow`: danger rules that are
    usual. `dangers`: False: the danger list is silent. `fleet`: the table its rates have a row in; None: its own.
    `danger_weights`: False: a dangerous place or tool weighs as much as any other (to measure what is seen without).
    """

    __slots__ = (  # a dictionary of so many would be 1.6 KB
        "_activity", "_asleep", "_cache", "_ignored", "_passed", "_rule", "_tree", "_usual", "accepted",
        "alerts", "allow", "altered", "answers", "applied", "blind_until", "budgets", "calls", "categories",
        "containers", "counts", "danger_weights", "dangers", "deadline_ns", "decisions", "detectors", "drift",
        "epoch", "fleet", "grace_until", "host", "kin", "learning", "limits", "lost", "models", "name",
        "names_of", "now", "now_ns", "passing", "programs", "quarantine", "rate_told", "rates", "rehearsed",
        "releases", "replica", "replicas", "sender", "stirred", "suppressed", "together", "told", "unlearned",
        "window", "window_end",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        rule: Rule,
        models: Models,
        allow: list[Allow] | None = None,
        dangers: bool = True,
        fleet: Fleet | None = None,
        danger_weights: bool = True,
    ) -> None:
        self.name = name
        self._rule = rule
        self.models = models
        self.allow = allow or []
        self.dangers = dangers
        self.danger_weights = danger_weights
        self.alerts = AlertBudget(models)
        self.budgets = self.alerts.budgets
        self.told = self.alerts.told
        self._tree = Tree(keep=_keep)
        self.programs: set[str] = set()
        self.learning = Learning()
        self.categories = Categories()
        self._activity = Activity()
        self.fleet = fleet
        self.rates = Rates(fleet=fleet)
        self.detectors: list[Running] = []
        if models.detectors:
            from models.detectors import make  # River's detectors cost 112 MB: only where they are used

            self.detectors = make(models.detectors, name)
            if self.detectors:
                self.rates.table.follow.add(self.rates.row)
        self.calls = ProcessCalls()
        self.epoch = 0
        """Nanoseconds since the epoch of the first event; all other times are seconds since then."""
        self.now_ns = self.now = 0
        self.window = 0
        self.window_end = 1
        self.deadline_ns = 0
        self.grace_until = -1
        self.blind_until = 0
        self.rate_told: dict[str, int] = {}
        self.names_of: dict[str, str] = {}
        """address -> DNS name by which it was last asked for"""
        self.quarantine: dict[str, list[Any]] = {}
        """value -> [tokens, count, first, last, expected per week]"""
        self.accepted: dict[str, list[Any]] = {}
        """value -> [author, reason, time, decision id]"""
        self.unlearned: dict[str, list[Any]] = {}
        self.decisions = decisions.Decisions()
        self.releases = releases.Releases()
        self.drift = drift.Drift()
        self.answers: dict[str, list[int]] = {"false": [], "true": []}
        """What people said of alerts -> when, seconds since the workload's first event."""
        self.applied: dict[int, int] = {}
        self.counts: dict[str, int] = {}
        self.containers: dict[str, int] = {}
        """container -> its number among the workload's, from 1"""
        self.replica = self.replicas = 0
        self.together = -DAY
        """When an older container last acted beside a newer one: they are replicas, not one after the other."""
        self.lost = 0
        self.suppressed = 0
        self.limits: dict[str, list[int]] = {}
        self.rehearsed = [0, 0, 0]
        """Hour, findings in it of what would be told, novelties weighed for that."""
        self.altered: dict[str, int] = {}
        """Files of which a change was told: who reads them afterwards is one deviation, not one per program."""
        self.passing: dict[str, int] = {}
        """What such a program does is known of all in its directory."""
        self.host = True
        self._cache: dict[Any, Node] = {}
        self._ignored = Node(0)
        self._ignored.many = True
        self._passed: dict[int, None] = {}
        self._usual = Usual()
        self._asleep: Asleep | None = None
        self.stirred = 0
        """When something of what it knows was last used; nanoseconds since the epoch."""
        self.kin: siblings.Image | None = None
        """What other workloads of the same image know, lent by the store."""
        self.sender: Host = ("", "")
        """The node whose batch is being applied."""

    # --- asleep ------------------------------------------------------------------------------------------------------

    @property
    def tree(self) -> Tree:
        if self._asleep is not None:
            self.wake()
        return self._tree

    @property
    def activity(self) -> Activity:
        if self._asleep is not None:
            self.wake()
        return self._activity

    @property
    def usual(self) -> Usual:
        if self._asleep is not None:
            self.wake()
        return self._usual

    @property
    def asleep(self) -> bool:
        return self._asleep is not None

    def sleep(self) -> bool:
        """Keep what it knows as its bytes, a tenth of the memory, until something asks for it. Windows and the end of
        learning do not. False: it cannot now."""
        if self._asleep is not None or self._usual.changed:
            return False
        nodes = [self._ignored, *self._tree.nodes()]
        hosts, keys = list(self._usual.hosts), len(self._usual)
        packed = self._usual.pack({id(node): at for at, node in enumerate(nodes)})
        if packed is None:
            return False
        values = sum(1 for _ in self._tree.leaves())
        encode = msgspec.msgpack.encode
        state = encode([self._tree.dump(), self._activity.places, packed, list(self._passed)])
        self._asleep = Asleep(zlib.compress(state, 1), values, keys, hosts)
        self._tree.root, self._activity.places = Node(0), {}
        self._cache, self._passed = {}, {}
        return True

    def wake(self) -> None:
        asleep, self._asleep = self._asleep, None
        if asleep is None:
            return
        tree, places, packed, passed = msgspec.msgpack.decode(zlib.decompress(asleep.state), strict=False)
        times = self.categories.times()
        self._tree.load(tree, times)
        self._activity.load(places, times)
        self._usual.unpack(packed, [self._ignored, *self._tree.nodes()])
        self._passed = dict.fromkeys(passed)

    def known_values(self) -> int:
        return self._asleep.values if self._asleep is not None else sum(1 for _ in self._tree.leaves())

    @property
    def handed(self) -> bool:
        """Is there something to tell about what is usual?"""
        return self._asleep is None and self._usual.changed

    @property
    def in_kernel(self) -> int:
        return self._asleep.keys if self._asleep is not None else len(self._usual)

    @property
    def hosts(self) -> list[Host]:
        """Nodes that may count something of it."""
        return self._asleep.hosts if self._asleep is not None else list(self._usual.hosts)

    @property
    def unanswered(self) -> bool:
        return bool(self._usual.refused or self._usual.unknown)

    def unhanded(self) -> tuple[int, int]:
        """Keys that were refused, and repeats of unknown keys, since last asked."""
        usual = self._usual
        counts = usual.refused, usual.unknown
        usual.refused = usual.unknown = 0
        return counts

    # --- the rule ----------------------------------------------------------------------------------------------------

    def observe(self, event: Event) -> Finding | None:
        """Danger first; what is known counts; what is new is told or learned, never both."""
        self.stirred = event.time
        if event.time >= self.deadline_ns:
            self.advance(event.time)
        if event.kind == "connect" and (remote := event.remote) is not None and remote.ip:
            self.rates.met(remote.ip, remote.port)
        if event.detail and "used" in event.detail and (finding := self.calls.observe(self, event)) is not None:
            return finding
        key = _key(event)
        if key is not None and (node := self._cache.get(key)) is not None:
            self._visit(node, event)
            if event.key or event.shape:
                self._hand(event, node)
            return None
        return self._judge(event, key)

    def _hand(self, event: Event, node: Node) -> None:
        """Known for good, at its second sighting: from now on its node counts it. The kernel's key holds all that
        `_key` does: the program's file, its first two arguments, what it acts on and how."""
        if danger.match(event) is not None:  # allowed here, yet never out of sight
            return
        view = self._view(event)
        handed = event.key
        if event.kind == "file" and view is not None and volatile(self.tree.root, view.tokens):
            handed = 0 if sensitive(view.sort) else event.shape
        if handed:
            self.usual.hand(self.sender, handed, node, event.kind, self.now)

    def _passed_over(self, event: Event) -> None:
        """Nothing that is looked at (a name that was not there, say); once more, and the kernel counts it."""
        if event.count > 1 or event.key in self._passed:
            self._hand(event, self._ignored)
            return
        if len(self._passed) >= PASSED:
            self._passed.clear()
        self._passed[event.key] = None

    def repeated(self, repeats: dict[int, int], time_ns: int) -> None:
        """What the kernel counted instead of sending it; 0: what it counts no longer."""
        self.stirred = time_ns
        if time_ns >= self.deadline_ns:
            self.advance(time_ns)
        self.usual.heard(self.sender)
        now = self.now
        for key, count in repeats.items():
            found = self.usual.node(self.sender, key, count, now)
            if found is not None:
                node, kind = found
                self.counts[kind] = self.counts.get(kind, 0) + count
                self._credit(node, count)

    def _judge(self, event: Event, key: Any) -> Finding | None:
        kind = event.kind
        if self.dangers and (hit := danger.match(event)) is not None and not self._allowed(hit, event):
            return self._danger(hit, event)
        if kind == "exec" and event.action == "exec":
            self._started(event)
        view = self._view(event)
        if view is None or kind in self.budgets.off:
            if key is not None:
                self._remember(key, self._ignored)
            elif event.key:
                self._passed_over(event)
            return None
        decided = self.decisions
        text = novelty.value(view.tokens) if self.unlearned or self.accepted or decided.named else ""
        nodes, depth = self.tree.walk(view.tokens)
        if depth == len(view.tokens) and nodes[-1].n and text not in self.unlearned:
            if self._provisional(nodes[-1]) and text not in self.accepted and not self._given(event, view):
                return self._again(event, view, nodes)
            self._visit(nodes[-1], event)
            if kind == "exec":
                self._passing(view.tokens[2].lstrip(SPECIAL))
            if key is not None:
                self._remember(key, nodes[-1])
            if event.key or event.shape:  # a path that changes every time is seen again only as a value
                self._hand(event, nodes[-1])
            return None
        if (verdict := self._decided(event, view, nodes, depth, text)) is not None:
            return verdict[0]
        if self.learning.mode == "learning" or text in self.accepted or self._given(event, view):
            finding = self._rehearse(event, view, nodes, depth, text) if self.learning.mode == "learning" else None
            self._learn(view, nodes, depth, event)
            if event.count > 1 and finding is None and (event.key or event.shape):  # seen more than once already
                nodes, depth = self.tree.walk(view.tokens)
                if depth == len(view.tokens):
                    self._hand(event, nodes[-1])
            return finding
        expected, weight, place = self._expected(view, nodes, depth, event)
        if text in self.unlearned:
            expected = 0.0
        elif drift.harmless(self, event, view, depth, weight) and (drifted := self._drifted(event, view, expected)):
            self.quarantine.pop(novelty.value(view.tokens), None)
            self._learn(view, nodes, depth, event)
            return drifted[0]
        if expected <= self.budgets.of(kind):
            release = releases.opened(self, event, view, depth, weight) if text not in self.unlearned else None
            if release is not None and releases.supported(release, novelty.value(view.tokens), event.container):
                self.quarantine.pop(novelty.value(view.tokens), None)
                self._learn(view, nodes, depth, event)
                return None
            return self._tell(event, view, expected, weight, place, depth, release)
        actor = view.tokens[1]
        if kind in ("accept", "dns") or actor in self.programs or actor.startswith("(") or actor.endswith("/*"):
            self._learn(view, nodes, depth, event)  # what a program does that was told itself stays unknown with it
        return None

    def _decided(
        self, event: Event, view: View, nodes: list[Node], depth: int, text: str
    ) -> tuple[Finding | None] | None:
        """What people's decisions say of an unknown value; None: nothing."""
        d = self.decisions
        if text and text in d.confirmed:
            _, weight, place = self._expected(view, nodes, depth, event)
            return (self._tell(event, view, 0.0, weight, place, depth),)
        if d.passing and text not in self.unlearned and d.silent(view.tokens, text, event.count, self.now):
            return (None,)
        if text in self.accepted:
            decisions.learn(self, view.tokens, text, event.count)
            return (None,)
        if d.locks and d.locked(event.kind) is not None:
            if event.detail and (event.detail.get("seeded") or event.detail.get("runtime")):
                return (None,)
            expected, weight, place = self._expected(view, nodes, depth, event)
            return (self._tell(event, view, 0.0 if text in self.unlearned else expected, weight, place, depth),)
        return None

    def _drifted(self, event: Event, view: View, expected: float) -> tuple[Finding | None] | None:
        """What the gate of its kind says; None: nothing."""
        return drift.verdict(self, event, event.kind, novelty.value(view.tokens), expected, self.categories)

    @property
    def crowded(self) -> bool:
        """Did it forget something to stay small? Then a first time is the first that it remembers."""
        return bool(self._tree.forgotten) or len(self.quarantine) >= QUARANTINE

    def fresh(self) -> None:
        """Everything is judged anew."""
        self._cache.clear()
        self.usual.clear()

    def lighten(self, share: float) -> bool:
        """Know at most this share of what is known now, from now on; False: so little is not worth having."""
        cap = int(self.tree.size * share)
        if cap < LEAST:
            return False
        self.tree.cap = cap
        self.tree.shrink(self.now)
        self.fresh()
        return True

    def _provisional(self, node: Node) -> bool:
        learning = self.learning
        if learning.mode == "learning" or self.forced:
            return False
        return support.provisional(node, learning.start, learning.ended, self._several())

    def _several(self) -> bool:
        """Did replicas act side by side at the end of learning?"""
        ended = self.learning.ended
        return ended is not None and self.together >= ended - DAY

    def _again(self, event: Event, view: View, nodes: list[Node]) -> Finding | None:
        """What learning saw without support: judged as if it were new; told and unlearned, or one use more."""
        depth = support.left_at(nodes)
        expected, weight, place = self._expected(view, nodes[: depth + 1], depth, event, doubted=nodes[-1].born)
        if expected <= self.budgets.of(event.kind):
            weight = weight.said()
            self.tree.remove(view.tokens)
            self._rebuild_programs()
            self._cache.clear()
            return self._tell(event, view, expected, weight, place, depth)
        self._visit(nodes[-1], event)
        return None

    def _rehearse(self, event: Event, view: View, nodes: list[Node], depth: int, text: str) -> Finding | None:
        """In the second half of learning: what would be told if learning ended now. It is learned all the same."""
        rule, learning, now = self.rule, self.learning, self.now
        span = rule.max if rule.max is not None else max(rule.min, rule.evidence)
        if 2 * (now - learning.start) < span or text in self.accepted or self._given(event, view):
            return None
        hour = now // 3600
        if self.rehearsed[0] != hour:
            self.rehearsed = [hour, 0, 0]
        if self.rehearsed[1] >= REHEARSED or self.rehearsed[2] >= TRIED:
            return None
        self.rehearsed[2] += 1
        expected, weight, place = self._expected(view, nodes, depth, event)
        if expected > self.budgets.of(event.kind):
            return None
        self.rehearsed[1] += 1
        value = novelty.value(view.tokens)
        evidence = {"odds": weight.odds, "place": place}
        return self._novel(event, view, weight, expected, value, value, evidence, would=True)

    # --- River's side ------------------------------------------------------------------------------------------------

    def score_one(self, x: dict[Hashable, Any]) -> float:
        from math import log2

        event: Event = x["event"]
        view = self._view(event)
        if view is None:
            return 0.0
        nodes, depth = self.tree.walk(view.tokens)
        if depth == len(view.tokens) and nodes[-1].n:
            return 1.0 / (1.0 + nodes[-1].n)
        expected = self._expected(view, nodes, depth, event)[0]
        return max(1.0, 1.0 + log2(1.0 + 1000.0 / max(expected, 1e-9)))

    def learn_one(self, x: dict[Hashable, Any]) -> None:
        event: Event = x["event"]
        if event.time >= self.deadline_ns:
            self.advance(event.time)
        view = self._view(event)
        if view is None:
            return
        nodes, depth = self.tree.walk(view.tokens)
        if depth == len(view.tokens) and nodes[-1].n:
            self._visit(nodes[-1], event)
        else:
            self._learn(view, nodes, depth, event)

    # --- time --------------------------------------------------------------------------------------------------------

    def seconds(self, time_ns: int) -> int:
        return max(0, (time_ns - self.epoch) // NS)

    def advance(self, time_ns: int) -> None:
        """Let time pass: windows, clock hours, and the end of learning."""
        if not self.epoch:
            self.epoch = time_ns
        if time_ns > self.now_ns:
            self.now_ns = time_ns
        now = self.now = self.seconds(self.now_ns)
        if now >= self.window_end:
            width = max(1, min(600, (now - self.learning.start) // 60))
            self.window = now
            self.window_end = now + width
            if self.kin is not None:
                self.kin.watched(self.name, self.learning.observed(now), time_ns)
        learning, rule = self.learning, self.rule
        learning.hours |= 1 << (self.now_ns // (3600 * NS) % 24)
        learning.days |= 1 << ((self.now_ns // (86_400 * NS) + 3) % 7)
        if learning.mode != "enforcing":
            enough = learning.observed(now) >= max(rule.min, rule.evidence) and self.evidence() >= 1.0
            if enough:
                learning.mode = "enforcing"
                learning.ended = now if learning.ended is None else learning.ended
                self._cache.clear()
                self.usual.clear()  # what has no support is to come again
            elif (
                learning.mode == "learning"
                and rule.max is not None
                and time_ns >= self.epoch + int((learning.start + rule.max) * NS)
            ):
                learning.mode = "forced"
                learning.ended = now
                if not self.forced:
                    self._cache.clear()
                    self.usual.clear()
        nxt = self.epoch + self.window_end * NS
        if self.decisions.next is not None:
            if self.decisions.next <= self.now_ns:
                decisions.expire(self, self.now_ns)
            nxt = min(nxt, self.decisions.next or nxt)
        if learning.mode == "learning" and rule.max is not None:
            nxt = min(nxt, max(self.epoch + int((learning.start + rule.max) * NS), self.now_ns + 1))
        self.deadline_ns = nxt

    def blind(self, start_ns: int, end_ns: int) -> None:
        """Nobody watched in between. The same interval counts once, however often it is replayed."""
        start_ns = max(start_ns, self.blind_until, self.epoch)
        if end_ns > start_ns:
            self.learning.blind += (end_ns - start_ns) / NS
            self.rates.blind((end_ns - start_ns) / NS)
            self.blind_until = end_ns

    @property
    def rule(self) -> Rule:
        start_ns = self.epoch + int(self.learning.start * NS)
        return self._rule.ending(start_ns, self.learning.blind) if self.epoch else self._rule

    def surprises(self) -> float:
        return self.learning.surprises(self.now, self.categories)

    def evidence(self) -> float:
        return self.learning.evidence(self.now, self.rule, self.budgets.total, self.surprises())

    # --- known -------------------------------------------------------------------------------------------------------

    def _view(self, event: Event) -> View | None:
        kind = event.kind
        if kind == "connect":
            remote = event.remote
            if remote is not None and remote.ip and remote.name:
                self._named(remote.ip, remote.name)
            view = network.view_connect(event, self.names_of)
        elif kind == "dns" and event.action == "answer":
            self._answer(event)
            return None
        else:
            make = novelty.VIEWS.get(kind)
            view = make(event) if make is not None else None
        if view is not None and self.passing and view.tokens[1] in self.passing:
            kind, program, *rest = view.tokens
            return view._replace(tokens=(kind, f"{program.rpartition('/')[0]}/*", *rest))
        return view

    def _answer(self, event: Event) -> None:
        addresses = event.detail.get("addresses")
        if event.object and isinstance(addresses, (list, tuple)):
            for address in addresses[:32]:
                self._named(str(address), event.object)

    def _named(self, address: str, name: str) -> None:
        """Remember by which name an address was asked for: a name stays what it is when its addresses change."""
        address, name = network.plain_address(address), name.rstrip(".").lower()
        before = self.names_of.get(address)
        if before == name:
            return
        self.names_of[intern(address)] = intern(name)
        if before is not None:
            self.usual.drop("connect")  # the kernel knows addresses only
        if len(self.names_of) > 512:
            del self.names_of[next(iter(self.names_of))]
        self._cache.clear()

    def _remember(self, key: Any, node: Node) -> None:
        if len(self._cache) >= CACHE:
            self._cache.clear()
        self._cache[key] = node

    def _visit(self, node: Node, event: Event) -> None:
        node.done_by(self.replica)
        self._credit(node, event.count)

    def _credit(self, node: Node, count: int) -> None:
        node.n += count
        if node.last < self.window:
            node.last = self.window
            node.many = True

    def _learn(self, view: View, nodes: list[Node], depth: int, event: Event) -> None:
        tokens = view.tokens
        window = self.window
        new = depth < len(tokens) or not nodes[-1].n
        node = self.tree.grow(nodes[-1], tokens[depth:], window)
        if not node.n:
            node.born = node.last = window
        node.n += event.count
        node.done_by(self.replica)
        self._program(tokens)
        if not new:
            return
        release = self.releases.fresh(event.container, self.seconds(event.time), releases.SHOWN_S)
        if release is not None:
            release.note(novelty.value(tokens))
        actor = actor_of(view)
        now = self.now
        busy = bool(actor) and self._busy(actor, now - min(self.learning.observed(now), 20 * DAY) / 2)
        category = category_of(view, depth, busy)
        self.categories.add(category, window)
        if self.kin is not None:
            self.kin.learned(self.name, siblings.mark(novelty.value(tokens)), category, window)
        if actor and depth >= 2 and nodes[2].born < window:
            self.activity.note(actor, window)
        place = place_of(view, depth)
        if nodes[-1].born < window and not event.detail.get("seeded"):
            self.activity.note(place, window)
            # not later: who is not told of at one place may not excuse himself at all others
            if depth >= 2 and self.learning.mode == "learning":
                wide = program_of(view, depth)
                if wide:
                    self.activity.note(f"{wide}#{zlib.crc32(place.encode()) & 3}", window)
        parent = nodes[depth] if depth < len(nodes) else nodes[-1]
        if len(parent.children) >= 50 and self.tree.collapse(tokens, depth):
            self._cache.clear()
            self.usual.clear()
        if self.tree.size > self.tree.cap:
            self.tree.shrink(self.now)
            self._cache.clear()
            self.usual.clear()

    def _program(self, tokens: tuple[str, ...]) -> None:
        if tokens[0] == "exec":
            self.programs.add(tokens[1])
            self.programs.add(tokens[2].lstrip(SPECIAL))
        elif tokens[0] in ("file", "connect", "listen", "privilege"):
            self.programs.add(tokens[1])

    def _passing(self, program: str) -> None:
        """A program that is usual only as one of many: `*` of its parent."""
        if program not in self.programs and program.startswith("/"):
            self.passing.pop(program, None)
            self.passing[intern(program)] = self.now
            if len(self.passing) > PASSING:
                del self.passing[next(iter(self.passing))]

    def _rebuild_programs(self) -> None:
        self.programs = set()
        for tokens, _ in self.tree.leaves():
            self._program(tokens)

    def _started(self, event: Event) -> None:
        if event.detail.get("first"):
            if self.learning.mode == "learning":
                self.learning.starts += 1
            elif not self.learning.starts:
                self.learning.starts += 1
                self.grace_until = self.now + GRACE_S

    def contained(self, container: Container, time_ns: int = 0) -> None:
        """It runs in a container, in this one among others."""
        self.host = False
        self.releases.seen(container, self.seconds(time_ns) if self.epoch else 0)
        if container.id not in self.containers:
            if len(self.containers) >= 64:
                del self.containers[next(iter(self.containers))]
            self.replicas += 1
            self.containers[container.id] = self.replicas
        self.replica = self.containers[container.id]
        if self.replica < self.replicas:
            self.together = self.now

    def _given(self, event: Event, view: View) -> bool:
        """Learned without a question: what was there before we looked, what a runtime does, a first start."""
        detail = event.detail
        if detail and (detail.get("seeded") or detail.get("runtime")):
            return True
        if self.now < self.grace_until:
            return view.tokens[1] in self.programs and view.sort not in NOT_AT_A_START
        return False

    # --- unknown -----------------------------------------------------------------------------------------------------

    def _expected(
        self, view: View, nodes: list[Node], depth: int, event: Event, doubted: int | None = None
    ) -> tuple[float, Weight, str]:
        """Expected occurrences per week of something at least this unusual; the budget's answer for one departure."""
        kind = event.kind
        depth = min(depth, len(view.tokens) - 1)
        place = place_of(view, depth)
        learning = self.learning
        now, observed = self.now, learning.observed(self.now)
        forced = self.forced
        kin = self.kin if self.kin is not None and not self.kin.alone(self.name) else None
        if forced:
            ended = learning.ended if learning.ended is not None else now
            since = learning.start + (ended - learning.start) / 2
        else:
            since = now - min(observed, 20 * DAY) / 2
        active = self._active(view, depth, nodes, since, place)
        known = Known(self.tree, self.programs, self.host)
        if doubted is not None:  # it may know the program only by what is in doubt
            doubtful = {view.tokens[2].lstrip(SPECIAL)} if kind == "exec" else {view.tokens[1]} if depth < 2 else set()
            known = known._replace(programs=self.programs - doubtful, doubted=doubted)
        weight = novelty.KINDS[kind](view, depth, nodes, known, event)
        if not self.danger_weights and weight.odds < 1.0:
            weight = weight._replace(odds=1.0)
        if forced:
            busy, excused = host.factor(self.name, view, known, event) if self.host else (1.0, True)
            spread = excused and self._spread(view, depth, since)
            expected = budgets.by_clock(weight.odds, active, spread, now, since) * busy
        else:
            category = category_of(view, depth, self._busy(actor_of(view), since))
            odds = weight.odds
            lent = Lent(*kin.lent(self.name, category)) if kin is not None else NOTHING_LENT
            if spawned(view, depth, nodes):
                odds, lent = max(odds, SPAWNED), NOTHING_LENT  # a job of one's own: siblings cannot know it
            elif kind != "exec" and actor_of(view) and depth <= 1:
                lent = NOTHING_LENT  # nor what a program does that only this one has
            if doubted is not None:
                active = [window for window in active if window != doubted]
            expected = budgets.by_evidence(
                self.categories, category, odds, observed, active, now, lent, without=doubted
            )
        value = novelty.value(view.tokens)
        if kin is not None:
            known_by = kin.others(self.name, siblings.mark(value))
            expected *= siblings.TRUST ** min(known_by, siblings.SUPPORT)
        expected *= self.alerts.factor(place, value, now, forced)
        return expected, weight, place

    @property
    def forced(self) -> bool:
        """Too little was seen to speak of weeks."""
        learning = self.learning
        return learning.mode != "enforcing" and learning.observed(self.now) < max(self.rule.evidence, 3600.0)

    def _busy(self, actor: str, since: float) -> bool:
        """Does this program keep bringing something new of this kind?"""
        return bool(actor) and len(self.activity.since(actor, since)) >= 2

    def _active(self, view: View, depth: int, nodes: list[Node], since: float, place: str) -> list[int]:
        """Windows in which this place, or what a young place grew from, brought something new of this sort."""
        best = self.activity.since(place, since)
        while depth > 2 and depth < len(nodes) + 1 and nodes[min(depth, len(nodes) - 1)].born > since and len(best) < 2:
            depth -= 1
            above = self.activity.since(place_of(view, depth), since)
            if len(above) > len(best):
                best = above
        return best

    def _spread(self, view: View, depth: int, since: float) -> bool:
        """Has this program brought novelties of this sort in three places and windows since the middle of learning?"""
        wide = program_of(view, depth)
        if not wide:
            return False
        lists = [self.activity.since(f"{wide}#{i}", since) for i in range(4)]
        return sum(1 for ws in lists if ws) >= 3 and len({w for ws in lists for w in ws}) >= 3

    # --- telling -----------------------------------------------------------------------------------------------------

    def _limited(self, what: str, second: int, most: int) -> int | None:
        """None: too many of the same within a second. Else how many were held back since the last one told."""
        entry = self.limits.get(what)
        if entry is None:
            if len(self.limits) >= 256:
                self.limits.clear()
            entry = self.limits[what] = [second, 0, 0]
        if entry[0] != second:
            entry[0], entry[1] = second, 0
        entry[1] += 1
        if entry[1] > most:
            entry[2] += 1
            self.suppressed += 1
            return None
        held, entry[2] = entry[2], 0
        return held

    def _tell(
        self,
        event: Event,
        view: View,
        expected: float,
        weight: Weight,
        place: str,
        depth: int,
        release: releases.Release | None = None,
    ) -> Finding | None:
        value = novelty.value(view.tokens)
        now = self.now
        before = value in self.quarantine
        entry = self.hold(value, list(view.tokens), expected, event.count)
        subject = self._subject(event, view, value, place, depth)
        if release is not None:  # one alert for all that is harmless and new in it
            subject = f"release {release.digest}"
        new = self.releases.fresh(event.container, self.seconds(event.time), releases.SHOWN_S)
        if new is not None and not before:
            new.note(value)
        # what is told because a person said so, or is held back, says nothing of how many false alerts there are
        d = self.decisions
        by_itself = value not in d.confirmed and expected <= self.budgets.of(event.kind)
        if by_itself and d.snoozed(value, "novelty", event.time) is None:
            if self.alerts.quiet(subject, now, self.forced):
                self.suppressed += 1
                return None
            self.told.add(place, subject, now)
        held = self._limited(f"novelty {place}", event.time // NS, NOVEL_PER_SECOND)
        if held is None:
            return None
        evidence: dict[str, Any] = {"seen": entry[1], "odds": weight.odds, "place": place}
        if held:
            evidence["held_back"] = held
        return self._novel(event, view, weight, expected, value, subject, evidence)

    def hold(self, value: str, tokens: list[str], expected: float, count: int) -> list[Any]:
        """Keep it out of what is known, for review; its entry."""
        now = self.now
        entry = self.quarantine.pop(value, None)
        if entry is None:
            if len(self.quarantine) >= QUARANTINE:
                del self.quarantine[next(iter(self.quarantine))]  # the latest is last
            entry = [tokens, 0, now, now, expected]
        self.quarantine[value] = entry
        entry[1] += count
        entry[3] = now
        return entry

    def made(
        self,
        event: Event,
        *,
        kind: str,
        detector: str,
        severity: str,
        what: str,
        why: str,
        expected: float,
        budget: float,
        value: str,
        attack: tuple[str, ...],
        evidence: dict[str, Any],
    ) -> Finding:
        """A finding of a detector that keeps a model of its own."""
        bits = self._bits(expected)
        return self.finding(
            event, kind, detector, None, severity, what, why, bits, expected, budget, value, value, attack, evidence
        )

    def _novel(
        self,
        event: Event,
        view: View,
        weight: Weight,
        expected: float,
        value: str,
        subject: str,
        evidence: dict[str, Any],
        would: bool = False,
    ) -> Finding:
        of = self.budgets.of(event.kind)
        severity = weight.severity
        if expected <= of / 100 and severity in ("low", "medium"):
            severity = SEVERITIES[SEVERITIES.index(severity) + 1]
        why, said = explain.sentence(self, event, view, expected, weight, value)
        evidence.update(said)
        return self.finding(
            event,
            event.kind,
            "novelty",
            None,
            severity,
            weight.what.replace("{workload}", self.name),
            f"{why}{self.forced_note()}.",
            self._bits(expected),
            expected,
            of,
            value,
            subject,
            weight.attack,
            evidence,
            would,
        )

    def _subject(self, event: Event, view: View, value: str, place: str, depth: int) -> str:
        """What findings are told together as: the value; for readers of a file whose change was told, the file; for
        a program that reads its way through a tree it never read, the tree. Secrets are known by their exact names, and
        told together where these differ by a number. For one that removes files, the directory."""
        path = event.object
        if event.kind == "connect" and event.remote is not None and event.remote.name:
            asked = novelty.value(network.view_name(event.remote.name).tokens)
            return asked if asked in self.told.values else value
        if event.kind != "file" or not path:
            return value
        if event.action not in file.READ_ACTIONS:
            self._altered(event)
            if event.action == "unlink" and place.endswith("|plain"):
                return novelty.value((*view.tokens[:-1], "**"))
        elif path in self.altered:
            return f"file (any) read /{'/'.join(paths.segments(path))}"
        elif place.endswith("|plain") and programs.is_copier(view.tokens[1]):
            return novelty.value((*view.tokens[:4], "**"))
        elif place.endswith("|way|plain"):
            return novelty.value((*view.tokens[: depth + 1], "**"))
        elif place.endswith("|name|plain") and not self.forced:
            return novelty.value((*view.tokens[:4], "**"))  # a new version reads many
        return novelty.value((*view.tokens[:-1], paths.segment(view.tokens[-1].lstrip(SPECIAL))))

    def _altered(self, event: Event) -> None:
        to = event.detail.get("to") if event.detail else None
        for path in (event.object, to):
            if isinstance(path, str) and path:
                if len(self.altered) >= ALTERED and path not in self.altered:
                    del self.altered[min(self.altered, key=lambda p: self.altered[p])]
                self.altered[path] = self.now

    @staticmethod
    def _bits(expected: float) -> float:
        from math import log2

        return 1.0 + log2(1.0 + 1000.0 / max(expected, 1e-9))

    def forced_note(self) -> str:
        return f" (forced: evidence {int(100 * self.evidence())} %)" if self.learning.mode == "forced" else ""

    def finding(
        self,
        event: Event,
        kind: str,
        detector: str,
        rule: str | None,
        severity: str,
        what: str,
        why: str,
        score: float,
        expected: float | None,
        budget: float | None,
        value: str,
        generalised: str,
        attack: tuple[str, ...],
        evidence: dict[str, Any],
        would: bool = False,
    ) -> Finding:
        if not would and (snooze := self.decisions.snoozed(value, detector, event.time)) is not None:
            would = True
            snooze.silenced += max(1, event.count)
            snooze.last = self.now
            evidence["snoozed"] = {"id": snooze.id, "by": snooze.author, "until": rfc3339(snooze.until or 0)}
            why = f"{why} Snoozed by {snooze.author or 'somebody'} until {rfc3339(snooze.until or 0)[:16]}Z."
        if (release := releases.brought(self, event, value)) is not None:
            evidence["release"] = release
        return Finding(
            event=event,
            workload=self.name,
            kind=kind,
            detector=detector,
            rule=rule,
            severity=severity,
            what=what,
            why=why,
            score=score,
            expected_per_week=expected,
            budget=budget,
            mode=self.learning.mode,
            would_alert=would,
            value=value,
            fingerprint=f"{self.name}|{detector}|{generalised}",
            attack=attack,
            evidence=evidence,
        )

    # --- danger ------------------------------------------------------------------------------------------------------

    def _danger_value(self, hit: danger.Danger, event: Event) -> str:
        return f"danger {hit.rule.name} {who(event)}"

    def _allowed(self, hit: danger.Danger, event: Event) -> bool:
        if danger.allowed(hit.rule.name, self.name, event.process.exe or "", self.allow):
            return True
        return bool(self.accepted) and self._danger_value(hit, event) in self.accepted

    def _danger(self, hit: danger.Danger, event: Event) -> Finding | None:
        value = self._danger_value(hit, event)
        rule = hit.rule
        generalised = (
            f"{value} {'/'.join(paths.segments(hit.saw)) if hit.saw.startswith('/') else paths.segment(hit.saw[:80])}"
        )
        held = self._limited(f"danger {generalised}", event.time // NS, DANGER_PER_SECOND)
        if held is None:
            return None
        if event.kind == "file" and event.action not in file.READ_ACTIONS:
            self._altered(event)
        self.calls.danger(event)
        evidence: dict[str, Any] = {"saw": hit.saw}
        if held:
            evidence["held_back"] = held
        what = (
            rule.what.replace("{who}", programs.base(programs.program(event.process)))
            .replace("{workload}", self.name)
            .replace("{saw}", hit.saw)
        )
        return self.finding(
            event,
            "danger",
            "danger",
            rule.name,
            rule.severity,
            what,
            rule.why,
            64.0,
            None,
            None,
            value,
            generalised,
            rule.attack,
            evidence,
        )

    # --- decisions ---------------------------------------------------------------------------------------------------

    def decide(self, decision: Decision) -> str:
        if not self.epoch:
            self.epoch = decision.time
        action = decision.action
        d = self.decisions
        mark = f"{decision.id} {action} {decision.value or ''}"
        if mark in d.recent:
            return f"{self.name}: {action} was applied before"
        if action not in decisions.ACTIONS:
            raise ValueError(f"no such decision: {action}; known: {', '.join(decisions.ACTIONS)}")
        self._cache.clear()
        if action not in ("accept", "snooze", "enforce"):
            self.usual.clear()
        text = self._mode(action) if action in ("learn", "enforce") else decisions.take(self, decision)
        d.recent = [*d.recent[1 - decisions.RECENT :], mark]
        self.deadline_ns = 0
        return text

    def _mode(self, action: str) -> str:
        if action == "learn":
            self.learning.mode, self.learning.start, self.learning.ended = "learning", self.now, None
            self.learning.blind = 0.0
            return f"{self.name} is learning"
        if self.learning.mode == "learning":
            self.learning.mode = "enforcing" if self.evidence() >= 1.0 else "forced"
            self.learning.ended = self.now
        note = f" (forced: evidence {int(100 * self.evidence())} %)" if self.learning.mode == "forced" else ""
        return f"{self.name} is enforcing{note}"

    # --- state -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        tree: Any
        places: Any
        if self._asleep is not None:
            tree, places, *_ = _raw.decode(zlib.decompress(self._asleep.state))
        else:
            tree, places = self._tree.dump(), self._activity.places
        return {
            "name": self.name,
            "epoch": self.epoch,
            "now": self.now_ns,
            "window": [self.window, self.window_end],
            "deadline": self.deadline_ns,
            "grace": self.grace_until,
            "blind": self.blind_until,
            "learning": self.learning.dump(),
            "tree": tree,
            "forgotten": [self._tree.forgotten, self._tree.truncated],
            "categories": self.categories.dump(),
            "activity": places,
            "told": self.told.dump(),
            "rates": self.rates.dump(),
            "rate_told": self.rate_told,
            "names": self.names_of,
            "quarantine": self.quarantine,
            "accepted": self.accepted,
            "unlearned": self.unlearned,
            "decisions": self.decisions.dump(),
            "answers": self.answers,
            "releases": self.releases.dump(),
            "drift": self.drift.dump(),
            "applied": self.applied,
            "counts": self.counts,
            "containers": self.containers,
            "replicas": [self.replica, self.replicas, self.together],
            "lost": self.lost,
            "suppressed": self.suppressed,
            "limits": self.limits,
            "altered": self.altered,
            "rehearsed": self.rehearsed,
            "host": self.host,
            "passing": self.passing,
            "programs": sorted(self.programs),
            "calls": self.calls.dump(),
        }

    def usual_states(self) -> list[tuple[str, bytes | None]]:
        return self.usual.dump(self._credited()) if self._usual.unkept else []

    def load_usual(self, data: bytes) -> None:
        """After `load`. Raises ValueError."""
        self.usual.load(data, self._credited(), self.now)

    def _credited(self) -> Iterator[tuple[tuple[str, ...], Node]]:
        """Wherever repeats may be credited to."""
        yield (), self._ignored
        yield from self.tree.leaves()

    def load(self, s: dict[str, Any]) -> None:
        self._asleep = None
        self.epoch, self.now_ns, self.deadline_ns, self.grace_until = s["epoch"], s["now"], s["deadline"], s["grace"]
        self.now = self.seconds(self.now_ns)
        self.blind_until = s["blind"]
        self.window, self.window_end = s["window"]
        self.learning.load(s["learning"])
        times = Once[int]()
        self.tree.load(s["tree"], times)
        self.tree.forgotten, self.tree.truncated = s["forgotten"]
        self.categories.load(s["categories"], times)
        self.activity.load(s["activity"], times)
        self.told.load(s["told"])
        self.rates.load(s["rates"])
        self.rate_told = s["rate_told"]
        self.names_of = {intern(address): intern(name) for address, name in s["names"].items()}
        self.quarantine, self.accepted, self.unlearned = s["quarantine"], s["accepted"], s["unlearned"]
        if "decisions" in s:
            self.decisions.load(s["decisions"])
        else:
            self.decisions.adopt(self.accepted, self.unlearned)
        if "releases" in s:
            self.releases.load(s["releases"])
        self.drift.load(s.get("drift", {}))
        self.answers = {"false": [], "true": [], **s.get("answers", {})}
        self.applied, self.containers = s["applied"], s["containers"]
        self.counts = {intern(kind): count for kind, count in s["counts"].items()}
        self.lost, self.suppressed, self.limits, self.host = s["lost"], s["suppressed"], s["limits"], s["host"]
        self.altered, self.rehearsed = s.get("altered", {}), list(s.get("rehearsed", (0, 0, 0)))
        self.programs = set(map(intern, s["programs"]))
        if "calls" in s:
            self.calls.load(s["calls"])
        self.passing = {intern(program): last for program, last in s.get("passing", {}).items()}
        self.replica, self.replicas, self.together = s.get("replicas", (0, len(self.containers), -DAY))
        self._cache.clear()
        self.usual.clear()

    def review(self) -> list[tuple[tuple[str, ...], Node]]:
        """What learning saw without support, for a person to look at; empty while it learns or was too short to say."""
        learning = self.learning
        if learning.mode == "learning" or self.forced:
            return []
        return support.review(self.tree, learning.start, learning.ended, self._several())

    def spent(self, time_ns: int) -> tuple[float, int]:
        """(seconds of enforcing, false alerts in them) before that time, over the last four weeks at most."""
        now, ended = self.seconds(time_ns), self.learning.ended
        seconds = 0 if ended is None else min(max(0, now - ended), budgets.SPENT_S)
        return float(seconds), self.told.between(now - seconds, now)

    def stamp(self, second: int) -> str:
        return rfc3339(self.epoch + second * NS)


def _keep(place: tuple[str, ...]) -> bool:
    """Places whose entries are each worth their name."""
    if place[0] == "file":
        return paths.never_collapses("/" + "/".join(place[3:]))
    return place[0] in ("privilege", "listen") or (place[0] == "connect" and len(place) == 2)


def _key(event: Event) -> Any:
    """What makes two events the same to the baseline, cheaply; None where the slow way must look."""
    process = event.process
    kind = event.kind
    if kind == "file":
        if event.action not in OPENS or event.result in REFUSED:
            return None
        return (
            event.action,
            process.exe,
            process.argv[:2],
            event.object,
            event.flags,
            event.result < 0,
            event.detail.get("real"),
        )
    if kind == "exec":
        if event.action == "exit":
            return "exit"
        if (event.detail and event.detail.keys() != {"path"}) or (process.tty and process.entered):
            return None
        up = process.parent
        return (
            event.action,
            process.exe,
            process.argv,
            up and up.exe,
            up and up.argv[:2],
            process.entered,
            event.result,
        )
    if kind == "connect":
        remote = event.remote
        return (
            event.action,
            process.exe,
            process.argv[:2],
            event.object,
            remote and remote.name,
            event.detail.get("proto"),
            event.detail.get("family"),
        )
    if kind == "accept":
        remote = event.remote
        return (
            ("accept", process.exe, remote and remote.ip, event.detail.get("lport"), event.result < 0)
            if remote is not None
            else None
        )
    if kind == "dns" and event.action == "query":
        return ("query", event.object, process.exe)
    return None


def lossy(event: Event, lost: int) -> Event:
    """The event, marked with what was lost around it."""
    return msgspec.structs.replace(event, lost=lost) if lost > event.lost else event
