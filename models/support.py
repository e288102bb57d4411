"""Was what learning saw really usual? A value needs support: over time, or by more than one replica.

An intruder who was there while a workload learned did what he did once or twice, on one replica. So what was seen in
learning alone counts for its statistics at once, but stays *provisional* until it has support, and when it comes again
it is judged as if it were new: what is rare for this workload is told after all, the rest gains support. At the end of
learning all that is provisional and not plain is listed for review.

Learning that the clock ended is too short to ask for this: everything in it would be provisional.
"""

from typing import Any

from models import novelty
from models.counts import DAY
from models.tree import SPECIAL, Node, Tree

USES, SPREAD_S = 3, DAY
"""So often, over so long ..."""
APART_S = 3 * DAY
"""... or twice, so far apart: a weekly job comes twice in a fortnight."""
ALONE_USES = 20
"""Of several replicas, what only one does needs so many uses, so far apart: a leader's work."""
START_SHARE = 0.1
"""What was first seen in this share of learning, at its begin, is how the workload starts."""
LISTED = 100


def supported(node: Node, several: bool) -> bool:
    """
    >>> node = Node(0); node.n, node.last = 3, DAY
    >>> supported(node, several=False), supported(node, several=True)
    (True, False)
    >>> node.replica = -1
    >>> supported(node, several=True)
    True
    """
    spread = node.last - node.born
    if several:
        return node.replica < 0 or (node.n >= ALONE_USES and spread >= APART_S)
    return (node.n >= USES and spread >= SPREAD_S) or (node.n > 1 and spread >= APART_S)


def provisional(node: Node, start: int, ended: int | None, several: bool) -> bool:
    """Seen first while learning, after its start, and not supported since."""
    if ended is None or node.born > ended:
        return False
    return node.born > start + START_SHARE * (ended - start) and not supported(node, several)


def left_at(nodes: list[Node]) -> int:
    """At which depth a value left the tree when it was new: its way was made with it.

    >>> tree = Tree()
    >>> _ = tree.learn(("exec", "/app", "/bin/date", ""), 0); _ = tree.learn(("exec", "/app", "/bin/id", ""), 60)
    >>> left_at(tree.walk(("exec", "/app", "/bin/id", ""))[0])
    2
    """
    born = nodes[-1].born
    for depth, node in enumerate(nodes[1:]):
        if node.born >= born:
            return depth
    return len(nodes) - 2


def review(tree: Tree, start: int, ended: int | None, several: bool) -> list[tuple[tuple[str, ...], Node]]:
    """What learning saw without support and that is not plain: a special program or file, a new program, a peer, a
    listener, a privileged call. The rarest first."""
    found = []
    for tokens, node in tree.leaves():
        if provisional(node, start, ended, several) and _telling(tree, tokens):
            found.append((tokens, node))
    found.sort(key=lambda row: (row[1].n, not any(t.startswith(SPECIAL) for t in row[0]), novelty.value(row[0])))
    return found[:LISTED]


def _telling(tree: Tree, tokens: tuple[str, ...]) -> bool:
    if tokens[0] in ("connect", "listen", "privilege") or any(token.startswith(SPECIAL) for token in tokens):
        return True
    return tokens[0] == "exec" and left_at(tree.walk(tokens)[0]) <= 2


def shown(rows: list[tuple[tuple[str, ...], Node]], stamp: Any) -> list[dict[str, Any]]:
    return [
        {"value": novelty.value(tokens), "count": node.n, "first": stamp(node.born), "last": stamp(node.last)}
        for tokens, node in rows
    ]
