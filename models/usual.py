"""Which behaviour the kernel may count instead of sending it, as one workload's baseline decided."""

from collections.abc import Iterable, Iterator
from struct import pack, unpack
from sys import intern
from typing import Any
from zlib import crc32

import msgspec

from models.tree import ANY, SPECIAL, Node, wildcard

KEYS = 4096
"""Keys per workload and host. More are not handed, as long as none has been idle: their events go on being sent."""
HOSTS = 64
"""Hosts per workload. Of more, the events go on being sent, as long as none has been idle."""
IDLE = 3600
"""Seconds without a repeat after which a key, or a host, makes room for another."""
SENSITIVE = ("secret", "startup", "code", "system")
KINDS = ("file", "connect", "accept", "dns", "exec", "listen", "privilege")
"""Of keys, in the order of `Kept.kinds`."""
Host = tuple[str, str]
"""Name and boot id: a key means something only there."""
Place = tuple[Node, str, int]
"""Node, kind, and when the key was used last (as `Node.last`)."""
Leaves = Iterable[tuple[tuple[str, ...], Node]]


class Change(msgspec.Struct, frozen=True):
    """What one node is to be told about one workload, in the order: clear, remove, add."""

    workload: str
    host: Host
    add: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()
    clear: bool = False
    gone: bool = False
    """The host is forgotten: nobody there needs to be told anything any more."""


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """The keys of one host as they outlive the process, beside the baseline's snapshot: 13 bytes per key."""

    v: int
    host: str
    boot: str
    keys: bytes
    """u64 each."""
    places: bytes
    """u32 each: `name_of` the key's place in the tree."""
    kinds: bytes
    """u8 each."""


class Usual:
    """Keys that were handed, by host, each with the place in the tree that its repeats are credited to; the one that
    was used last is last. A key that is not in here is answered with "remove", and its event is sent and judged again.

    >>> usual = Usual()
    >>> usual.hand(("node1", "boot"), 7, Node(0), "file")
    True
    >>> usual.drain("web")
    [Change(workload='web', host=('node1', 'boot'), add=(7,), remove=(), clear=False, gone=False)]
    """

    __slots__ = ("_add", "_clear", "_gone", "_nodes", "_remove", "refused", "unkept", "unknown")

    def __init__(self) -> None:
        self._nodes: dict[Host, dict[int, Place]] = {}
        self._add: dict[Host, dict[int, None]] = {}
        self._remove: dict[Host, dict[int, None]] = {}
        self._clear: dict[Host, None] = {}
        self._gone: dict[Host, None] = {}
        self.unkept: dict[str, None] = {}
        """Names of hosts whose keys changed since they were last kept."""
        self.refused = 0
        """Keys beyond the bound, since last drained."""
        self.unknown = 0
        """Repeats of keys that nobody here knows, since last drained."""

    def __len__(self) -> int:
        return sum(map(len, self._nodes.values()))

    @property
    def changed(self) -> bool:
        return bool(self._add or self._remove or self._clear or self._gone)

    @property
    def hosts(self) -> Iterable[Host]:
        return self._nodes.keys()

    def keys(self, host: Host) -> Iterable[int]:
        return self._nodes.get(host, {}).keys()

    def hand(self, host: Host, key: int, node: Node, kind: str, now: int = 0) -> bool:
        """Hand a key; once more where the event came although it was handed: its node may have lost it. `now`: as in
        `Node.last`."""
        nodes = self._nodes.get(host)
        if nodes is None:
            nodes = self._meet(host, now)
        elif key not in nodes and len(nodes) >= KEYS and not self._evict(host, nodes, now):
            nodes = None
        if nodes is None:
            self.refused += 1
            return False
        before = nodes.pop(key, None)
        if before is None or before[:2] != (node, kind):
            self.unkept[host[0]] = None
        nodes[key] = (node, kind, now)
        self._add.setdefault(host, {})[key] = None
        self._remove.get(host, {}).pop(key, None)
        return True

    def _meet(self, host: Host, now: int) -> dict[int, Place] | None:
        """A host that is new here, or was started again: its keys of before mean nothing. None: there are too many."""
        for before in [one for one in self._nodes if one[0] == host[0]]:
            self._forget(before)
        if len(self._nodes) >= HOSTS:
            oldest, keys = next(iter(self._nodes.items()))
            if keys and now - next(reversed(keys.values()))[2] < IDLE:
                return None
            self._gone[oldest] = None
            self._forget(oldest)
        self._gone = {one: None for one in self._gone if one[0] != host[0]}
        nodes = self._nodes[host] = {}
        return nodes

    def _forget(self, host: Host) -> None:
        self.unkept[host[0]] = None
        for table in (self._nodes, self._add, self._remove, self._clear):
            table.pop(host, None)

    def _evict(self, host: Host, nodes: dict[int, Place], now: int) -> bool:
        """Make room: what was used longest ago, if that is long ago."""
        key = next(iter(nodes))
        if now - nodes[key][2] < IDLE:
            return False
        self._drop(host, key)
        return True

    def _drop(self, host: Host, key: int) -> None:
        del self._nodes[host][key]
        self.unkept[host[0]] = None
        self._add.get(host, {}).pop(key, None)
        self._remove.setdefault(host, {})[key] = None

    def heard(self, host: Host) -> None:
        """It is not the one to be forgotten next."""
        nodes = self._nodes.pop(host, None)
        if nodes is not None:
            self._nodes[host] = nodes

    def node(self, host: Host, key: int, count: int, now: int = 0) -> tuple[Node, str] | None:
        """Where to credit repeats, and their kind; None: unknown, and the sender is told so, or (`count` 0) the sender
        counts it no longer."""
        nodes = self._nodes.get(host, {})
        found = nodes.pop(key, None)
        if not count:
            if found is not None:
                self.unkept[host[0]] = None
            return None
        if found is None:
            self.unknown += count
            self._remove.setdefault(host, {})[key] = None
            return None
        node, kind, _ = found
        nodes[key] = (node, kind, now)
        return node, kind

    def drop(self, kind: str) -> None:
        """Everything of this kind is judged anew."""
        for host, nodes in self._nodes.items():
            for key in [key for key, (_, of, _) in nodes.items() if of == kind]:
                self._drop(host, key)

    def clear(self) -> None:
        """Everything is judged anew, everywhere."""
        self._clear.update(dict.fromkeys(self._nodes))
        self.unkept.update((name, None) for name, _ in self._nodes)
        self._nodes.clear()
        self._add.clear()
        self._remove.clear()

    def drain(self, workload: str) -> list[Change]:
        hosts = dict.fromkeys([*self._clear, *self._remove, *self._add])
        changes = [
            Change(workload, h, tuple(self._add.get(h, ())), tuple(self._remove.get(h, ())), h in self._clear)
            for h in hosts
        ]
        gone = [Change(workload, host, gone=True) for host in self._gone]
        self._add, self._remove, self._clear, self._gone = {}, {}, {}, {}
        return gone + [change for change in changes if change.add or change.remove or change.clear]

    # --- asleep ---

    def pack(self, places: dict[int, int]) -> list[Any] | None:
        """All keys without their nodes, which `places` numbers by id, and none is held any more. None: nothing was
        done, as something is still to be told, or a node is of no place."""
        if self.changed or any(id(node) not in places for keys in self._nodes.values() for node, _, _ in keys.values()):
            return None
        packed = [
            [host, [[key, places[id(node)], kind, last] for key, (node, kind, last) in keys.items()]]
            for host, keys in self._nodes.items()
        ]
        self._nodes = {}
        return packed

    def unpack(self, packed: list[Any], nodes: list[Node]) -> None:
        """What `pack` gave, with the nodes by number."""
        for (name, boot), rows in packed:
            self._nodes[name, boot] = {key: (nodes[at], intern(kind), last) for key, at, kind, last in rows}

    # --- kept ---

    def dump(self, leaves: Leaves) -> list[tuple[str, bytes | None]]:
        """Of each host in `unkept` its keys; None: there are none. `leaves`: whatever they are credited to."""
        if not self.unkept:
            return []
        names = {id(node): name_of(tokens) for tokens, node in leaves}
        return [(host, self._dump(host, names)) for host in sorted(self.unkept)]

    def _dump(self, name: str, names: dict[int, int]) -> bytes | None:
        for (known, boot), nodes in self._nodes.items():
            if known != name:
                continue
            rows = [
                (key, names[id(node)], KINDS.index(kind))
                for key, (node, kind, _) in nodes.items() if id(node) in names and kind in KINDS
            ]  # fmt: skip
            if not rows:
                return None
            keys, places, kinds = zip(*rows, strict=True)
            count = len(rows)
            kept = Kept(1, name, boot, pack(f"<{count}Q", *keys), pack(f"<{count}I", *places), bytes(kinds))
            return msgspec.msgpack.encode(kept)
        return None

    def load(self, data: bytes, leaves: Leaves, now: int = 0) -> None:
        """What is credited to none of `leaves` is unknown. Raises ValueError: all of it is."""
        kept = _kept.decode(data)
        count = len(kept.kinds)
        if kept.v != 1 or count > KEYS or len(kept.keys) != 8 * count or len(kept.places) != 4 * count:
            raise ValueError(f"keys of version {kept.v}, {count} of them, in {len(data)} bytes")
        if kept.kinds and max(kept.kinds) >= len(KINDS):
            raise ValueError(f"keys of an unknown kind, {max(kept.kinds)}")
        found = {name_of(tokens): node for tokens, node in leaves}
        keys, places = unpack(f"<{count}Q", kept.keys), unpack(f"<{count}I", kept.places)
        nodes: dict[int, Place] = {
            key: (found[place], KINDS[kind], now)
            for key, place, kind in zip(keys, places, kept.kinds, strict=True) if place in found
        }  # fmt: skip
        if nodes and len(self._nodes) < HOSTS:
            self._nodes[kept.host, kept.boot] = nodes


_kept = msgspec.msgpack.Decoder(Kept)


def name_of(tokens: tuple[str, ...]) -> int:
    """A place in the tree by a number that is the same after a restart. Two of one name would have their counts
    exchanged, and nothing else: both are known."""
    return crc32("\0".join(tokens).encode("utf-8", "surrogateescape"))


def sensitive(sort: str) -> bool:
    return sort in SENSITIVE or sort.startswith("runnable")


def volatile(root: Node, tokens: tuple[str, ...]) -> bool:
    """Whether the tree holds this path normalised: a token is a form (`<n>`), or a collapsed place covers it."""
    return any(_held(root, tokens))


def _held(node: Node, tokens: tuple[str, ...]) -> Iterator[bool]:
    for at, token in enumerate(tokens):
        found = node.child(token)
        if found is None:
            wild = wildcard(token)
            found = node.child(wild) if wild else None
            if found is None:
                return
            yield at >= 3
        else:
            yield at >= 3 and ("<" in token or token.lstrip(SPECIAL) == ANY)
        node = found
