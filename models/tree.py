"""What a workload is known to do, as one tree: kind, program, place, name. Where something leaves it matters."""

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from sys import intern
from typing import Any

from models.counts import Once

ANY = "*"
"""Child that stands for all plain ones of a place that always brings new names."""
SPECIAL = "!"
"""First letter of a token that is special at its place (a program in /tmp, a script among uploads): not in `*`."""
SECRET = "!!"
"""First letters of a token that nothing but itself covers."""
WIDE = 50
"""A place collapses from this many children on ..."""
SINGLE_SHARE = 0.05
"""... if more than this share of its visits were to names seen in one window only."""

AWAY_S = 15 * 86_400
"""What recurs is in use for so long after its last visit at most: two weeks and a day, for a weekly job that failed
once."""


def wildcard(token: str) -> str | None:
    """
    >>> wildcard("a.jpg"), wildcard("!shell.php"), wildcard("!!tls.key")
    ('*', '!*', None)
    """
    if token.startswith(SECRET):
        return None
    return SPECIAL + ANY if token.startswith(SPECIAL) else ANY


class Node:
    """A place, or a value; a worker holds millions. Most places have one child: it is held without a dictionary, which
    would be twice as large as the node.

    >>> node = Node(0)
    >>> node.put("etc", Node(5)); node.put("usr", Node(7)); node.drop("etc")
    >>> list(node.children), node.child("usr").born, node.child("etc")
    (['usr'], 7, None)
    """

    __slots__ = ("_below", "_name", "born", "last", "marks", "n")

    def __init__(self, born: int) -> None:
        self.n = 0
        """Visits that ended here; 0: only on the way."""
        self.born = born
        """Window of the first visit, seconds since the workload's first event."""
        self.last = born
        self.marks = 2
        """`many` and `replica`, as one number."""
        self._name: str | None = None
        """Of the only child, which `_below` then is; else `_below` is the dictionary of all, or None."""
        self._below: Any = None

    @property
    def many(self) -> bool:
        """Seen in more than one window."""
        return bool(self.marks & 1)

    @many.setter
    def many(self, many: bool) -> None:
        self.marks = self.marks & ~1 | many

    @property
    def replica(self) -> int:
        """Which container of the workload did it (from 1); 0: unknown; -1: more than one."""
        return (self.marks >> 1) - 1

    @replica.setter
    def replica(self, replica: int) -> None:
        self.marks = self.marks & 1 | (replica + 1) << 1

    def done_by(self, replica: int) -> None:
        """By this one too; 0: nobody knows."""
        before = self.marks >> 1
        if before and before != replica + 1:
            self.marks = self.marks & 1 | (0 if before > 1 else replica + 1 << 1)

    @property
    def children(self) -> Mapping[str, "Node"]:
        if self._name is not None:
            return {self._name: self._below}
        return self._below or {}

    def child(self, token: str) -> "Node | None":
        if self._name is not None:
            return self._below if self._name == token else None
        return self._below.get(token) if self._below is not None else None

    def put(self, token: str, child: "Node") -> None:
        if self._name is not None:
            self._below = {self._name: self._below, token: child}
            self._name = None
        elif self._below is not None:
            self._below[token] = child
        else:
            self._name, self._below = token, child

    def drop(self, token: str) -> None:
        if self._name == token:
            self._name = self._below = None
        else:
            del self._below[token]


Value = tuple[tuple[str, ...], Node]
"""As `leaves` names it."""


class Tree:
    """A bounded trie of values.

    >>> tree = Tree()
    >>> _ = tree.learn(("file", "/usr/bin/node", "read", "app", "x.js"), 0)
    >>> tree.walk(("file", "/usr/bin/node", "read", "app", "y.js"))[1]
    4
    """

    __slots__ = ("cap", "forgotten", "keep", "root", "size", "truncated")

    def __init__(self, cap: int = 1500, keep: Callable[[tuple[str, ...]], bool] = lambda place: False) -> None:
        self.cap = cap
        self.keep = keep
        """Places whose children are each worth their name: never collapsed."""
        self.root = Node(0)
        self.size = 0
        self.forgotten = 0
        """Values dropped to stay within the cap."""
        self.truncated = 0
        """Values folded into their place to stay within the cap."""

    def walk(self, tokens: tuple[str, ...]) -> tuple[list[Node], int]:
        """The known nodes along the way, root first, and how many tokens were known."""
        node = self.root
        nodes = [node]
        for i, token in enumerate(tokens):
            below = node._below
            if below is None:
                return nodes, i
            name = node._name
            if name is None:
                found = below.get(token)
                if found is None and (wild := wildcard(token)) is not None:
                    found = below.get(wild)
                if found is None:
                    return nodes, i
                node = found
            elif name == token or name == wildcard(token):
                node = below
            else:
                return nodes, i
            nodes.append(node)
        return nodes, len(tokens)

    def find(self, tokens: tuple[str, ...]) -> Node | None:
        nodes, depth = self.walk(tokens)
        return nodes[-1] if depth == len(tokens) else None

    def learn(self, tokens: tuple[str, ...], window: int) -> Node:
        """The node of this value; made, with its way, where it is new. Does not count the visit."""
        nodes, depth = self.walk(tokens)
        return self.grow(nodes[-1], tokens[depth:], window)

    def grow(self, node: Node, tokens: tuple[str, ...], window: int) -> Node:
        """`learn` from where `walk` ended: the last known node, and what is unknown behind it."""
        for token in tokens:
            fresh = Node(window)
            node.put(intern(token), fresh)  # workloads of one image have most names in common
            node = fresh
            self.size += 1
        return node

    def leaves(self, node: Node | None = None, prefix: tuple[str, ...] = ()) -> Iterator[Value]:
        node = node or self.root
        if node.n:
            yield prefix, node
        for token, child in node.children.items():
            yield from self.leaves(child, (*prefix, token))

    def nodes(self, node: Node | None = None) -> Iterator[Node]:
        """All of them, in an order that `dump` and `load` keep."""
        node = node or self.root
        yield node
        for child in node.children.values():
            yield from self.nodes(child)

    def remove(self, tokens: tuple[str, ...]) -> bool:
        """Forget one value, exactly as `leaves` names it."""
        way = [self.root]
        for token in tokens:
            child = way[-1].child(token)
            if child is None:
                return False
            way.append(child)
        way[-1].n = 0
        for token, above, node in zip(reversed(tokens), reversed(way[:-1]), reversed(way[1:]), strict=True):
            if node.n or node.children:
                break
            above.drop(token)
            self.size -= 1
        return True

    def collapse(self, tokens: tuple[str, ...], depth: int, wide: int = WIDE) -> bool:
        """Fold the children of the place `tokens[:depth]` into one, if the data says that their names mean nothing."""
        if depth < 2 or depth >= len(tokens) or self.keep(tokens[:depth]):
            return False
        nodes, known = self.walk(tokens[:depth])
        if known < depth or len(nodes[-1].children) < wide:
            return False
        wild = wildcard(tokens[depth])
        return wild is not None and self._fold(nodes[-1], wide, wild)

    def _fold(self, node: Node, wide: int, wild: str) -> bool:
        children = node.children
        mine = {t: c for t, c in children.items() if t != wild and wildcard(t) == wild}
        if len(mine) < wide:
            return False
        seen = singles = 0
        for child in mine.values():
            if child.children:
                below = visits(child)
                singles += below <= 8
            else:
                below = child.n
                singles += not child.many
            seen += below
        if singles <= SINGLE_SHARE * max(1, seen):
            return False
        into = children.get(wild)
        if into is None:
            into = Node(min(c.born for c in mine.values()))
            node.put(wild, into)
            self.size += 1
        into.many = True
        for token, child in mine.items():
            self._merge(into, child)
            node.drop(token)
        return True

    def _merge(self, into: Node, node: Node) -> None:
        """Take `node` out of the tree and add what it knew to `into`."""
        self.size -= 1
        into.n += node.n
        into.born = min(into.born, node.born)
        into.last = max(into.last, node.last)
        into.many = True
        if into.replica != node.replica:
            into.replica = -1 if into.replica and node.replica else into.replica or node.replica
        for token, child in node.children.items():
            there = into.child(token)
            if there is None:
                into.put(token, child)
            else:
                self._merge(there, child)

    def shrink(self, now: int) -> None:
        """Back under the cap: fold the widest places first, then forget: what does not come back, most where most is;
        only then what does, what has done so for the shortest time first; last what lasts."""
        target = int(self.cap * 0.6)
        for wide in (25, 12, 6):
            if self.size <= target:
                return
            for prefix, node in sorted(self._places(self.root, ()), key=lambda p: (-len(p[1].children), p[0])):
                if len(node.children) < wide or self.size <= target:
                    break
                if len(prefix) >= 3 and not self.keep(prefix):
                    before = self.size
                    self._fold(node, wide, ANY)
                    self.truncated += before - self.size
        values = list(self.leaves())
        lasting = _in_turn(self.root, (), {id(leaf) for tokens, leaf in values if _lasts(tokens)})[: target // 4]
        apart = {id(leaf) for _, leaf in lasting}
        using = [row for row in values if id(row[1]) not in apart and in_use(row[1], now)]
        using.sort(key=lambda row: (row[1].last - row[1].born, row[1].last, row[0]), reverse=True)
        apart.update(id(leaf) for _, leaf in using)
        others = _in_turn(self.root, (), {id(leaf) for _, leaf in values} - apart)
        for tokens, _ in reversed(lasting + using + others):
            if self.size <= target:
                return
            self.forgotten += 1
            self.remove(tokens)

    def _places(self, node: Node, prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Node]]:
        for token, child in node.children.items():
            if child.children:
                yield (*prefix, token), child
                yield from self._places(child, (*prefix, token))

    def dump(self, node: Node | None = None) -> list[Any]:
        node = node or self.root
        row: list[Any] = [node.n, node.born, node.last - node.born, node.marks]
        kids = [[t, *self.dump(c)] for t, c in node.children.items()]
        return [*row, kids] if kids else row

    def load(self, row: list[Any], times: Once[int]) -> None:
        self.size = -1
        self.root = self._node(row, times)

    def _node(self, row: list[Any], times: Once[int]) -> Node:
        self.size += 1
        node = Node(times[row[1]])
        node.n, node.last, node.marks = row[0], times[row[1] + row[2]], row[3]
        for token, *kid in row[4] if len(row) > 4 else ():
            node.put(intern(token), self._node(kid, times))
        return node


def _lasts(tokens: tuple[str, ...]) -> bool:
    """What is done once, at a start, and stays so: who listens, which rights are given up, which secret and which
    settings are read. It is in use as long as the program runs, and comes back with the next start."""
    return (
        tokens[0] in ("listen", "privilege")
        or tokens[-1].startswith(SECRET)
        or (tokens[0] == "file" and len(tokens) > 3 and tokens[2:4] == ("read", "etc"))
    )


def in_use(node: Node, now: int) -> bool:
    """Seen over a time of which it has not been away for twice as long: what comes daily or weekly is, from its second
    time on, and what came and went is not.

    >>> node = Node(0); node.last, node.many = 86_400, True
    >>> in_use(node, 2 * 86_400), in_use(node, 4 * 86_400)
    (True, False)
    """
    return node.many and now - node.last <= min(2 * (node.last - node.born), AWAY_S)


def _in_turn(node: Node, prefix: tuple[str, ...], of: set[int]) -> list[Value]:
    """Those of the values below a node, by id; first what is to stay: each child gives one in turn, whoever was used
    last begins. So a place that brings many names pays for them itself; what a daily job did once outlives them."""
    below = [part for t, c in node.children.items() if (part := _in_turn(c, (*prefix, t), of))]
    below.sort(key=lambda part: (part[0][1].last, part[0][0]), reverse=True)
    own = [(prefix, node)] if id(node) in of else []
    return own + [value for turn in zip_longest(*below) for value in turn if value is not None]


def visits(node: Node) -> int:
    """Of all that lies below it, too."""
    seen = 0
    left = [node]
    for above in left:
        seen += above.n
        left += above.children.values()
    return seen
