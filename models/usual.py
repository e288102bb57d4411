"""Which behaviour the kernel may count instead of sending it, as one workload's baseline decided."""

from collections.abc import Iterator

import msgspec

from models.tree import ANY, SPECIAL, Node, wildcard

KEYS = 4096
"""Keys per workload and host. More are not handed: their events go on being sent."""
HOSTS = 64
"""Hosts per workload."""
SENSITIVE = ("secret", "startup", "code", "system")

Host = tuple[str, str]
"""Name and boot id: a key means something only there."""


class Change(msgspec.Struct, frozen=True):
    """What one node is to be told about one workload, in the order: clear, remove, add."""

    workload: str
    host: Host
    add: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()
    clear: bool = False


class Usual:
    """Keys that were handed, by host, each with the place in the tree that its repeats are credited to. In memory only:
    a key that is not in here (after a restart) is answered with "remove", and its event is sent and judged again.

    >>> usual = Usual()
    >>> usual.hand(("node1", "boot"), 7, Node(0), "file")
    True
    >>> usual.drain("web")
    [Change(workload='web', host=('node1', 'boot'), add=(7,), remove=(), clear=False)]
    """

    def __init__(self) -> None:
        self._nodes: dict[Host, dict[int, tuple[Node, str]]] = {}
        self._add: dict[Host, dict[int, None]] = {}
        self._remove: dict[Host, dict[int, None]] = {}
        self._clear: set[Host] = set()
        self.refused = 0
        """Keys beyond the bound, since last drained."""
        self.unknown = 0
        """Repeats of keys that nobody here knows, since last drained."""

    def __len__(self) -> int:
        return sum(map(len, self._nodes.values()))

    @property
    def changed(self) -> bool:
        return bool(self._add or self._remove or self._clear)

    def hand(self, host: Host, key: int, node: Node, kind: str) -> bool:
        """Hand a key; once more where the event came although it was handed: its node may have lost it."""
        nodes = self._nodes.get(host)
        if nodes is None:
            if len(self._nodes) >= HOSTS:
                self.refused += 1
                return False
            nodes = self._nodes[host] = {}
        if key not in nodes and len(nodes) >= KEYS:
            self.refused += 1
            return False
        nodes[key] = (node, kind)
        self._add.setdefault(host, {})[key] = None
        self._remove.get(host, {}).pop(key, None)
        return True

    def node(self, host: Host, key: int, count: int) -> tuple[Node, str] | None:
        """Where to credit repeats, and their kind; None: unknown, and the sender is told so."""
        found = self._nodes.get(host, {}).get(key)
        if found is None:
            self.unknown += count
            self._remove.setdefault(host, {})[key] = None
        return found

    def drop(self, kind: str) -> None:
        """Everything of this kind is judged anew."""
        for host, nodes in self._nodes.items():
            for key in [key for key, (_, of) in nodes.items() if of == kind]:
                del nodes[key]
                self._add.get(host, {}).pop(key, None)
                self._remove.setdefault(host, {})[key] = None

    def clear(self) -> None:
        """Everything is judged anew, everywhere."""
        self._clear.update(self._nodes)
        self._nodes.clear()
        self._add.clear()
        self._remove.clear()

    def drain(self, workload: str) -> list[Change]:
        hosts = dict.fromkeys([*self._clear, *self._remove, *self._add])
        changes = [
            Change(workload, h, tuple(self._add.get(h, ())), tuple(self._remove.get(h, ())), h in self._clear)
            for h in hosts
        ]
        self._add, self._remove, self._clear = {}, {}, set()
        return [change for change in changes if change.add or change.remove or change.clear]


def sensitive(sort: str) -> bool:
    return sort in SENSITIVE or sort.startswith("runnable")


def volatile(root: Node, tokens: tuple[str, ...]) -> bool:
    """Whether the tree holds this path normalised: a token is a form (`<n>`), or a collapsed place covers it."""
    return any(_held(root, tokens))


def _held(node: Node, tokens: tuple[str, ...]) -> Iterator[bool]:
    for at, token in enumerate(tokens):
        children = node.children or {}
        found = children.get(token)
        if found is None:
            wild = wildcard(token)
            found = children.get(wild) if wild else None
            if found is None:
                return
            yield at >= 3
        else:
            yield at >= 3 and ("<" in token or token.lstrip(SPECIAL) == ANY)
        node = found
