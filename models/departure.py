"""Names for where an event leaves the tree: its place, its program as a whole, its category."""

from models import paths
from models.kinds import network
from models.kinds.view import View
from models.tree import Node

_TOOLS = ("shell", "download", "network")


def _level(view: View, depth: int) -> str:
    return "name" if depth >= len(view.tokens) - 1 else "way"


def _group(view: View) -> str:
    """Sorts that say the same about a place."""
    return (
        "plain"
        if view.sort in ("plain", "data", "temp", "other", "code", "private", "external", "loopback")
        else view.sort
    )


def _bare(view: View) -> str:
    """Who keeps meeting new names does not go to addresses that nobody asked for."""
    bare = view.tokens[0] == "connect" and view.sort in ("external", "private") and network.is_address(view.tokens[3])
    return " address" if bare else ""


def place_of(view: View, depth: int) -> str:
    """Where it leaves the tree, at which level, and its sort. What is special has a place of its own."""
    tokens = view.tokens
    if tokens[0] == "connect" and depth == 3 and len(tokens) == 5:
        return f"{' '.join(tokens[:3])} *{_bare(view)}:{tokens[4]}|{_group(view)}"
    if tokens[0] == "exec" and depth == 1 and view.sort in _TOOLS and paths.is_system(tokens[1]):
        return f"exec {tokens[1]}|way|{view.sort}"  # that others start shells does not excuse it
    if tokens[0] == "file" or len(tokens) - depth > 1:
        return f"{' '.join(tokens[:depth])}|{_level(view, depth)}|{_group(view)}"
    return f"{' '.join(tokens[:depth])}|{_group(view)}"


def program_of(view: View, depth: int) -> str:
    """The same for the program as a whole; only where things of this sort are of one kind wherever they are."""
    tokens = view.tokens
    if tokens[0] == "file" and depth >= 3 and _group(view) == "plain":
        return f"~file {tokens[1]} {tokens[2]}|{_level(view, depth)}"
    if tokens[0] == "exec" and depth >= 2:
        return f"~exec {depth}|{_group(view)}"
    return ""


ACTORS = frozenset({"exec", "file", "connect", "listen", "privilege"})
"""Kinds whose second token is who acts."""


def actor_of(view: View) -> str:
    """The program that acts, for this kind: whether it keeps bringing something new is part of the category."""
    tokens = view.tokens
    return f"@{tokens[0]} {tokens[1]}" if tokens[0] in ACTORS else ""


SPAWNS = 3
"""Programs that one must have started to be one that starts programs: a cron, a shell's loop."""


def spawned(view: View, depth: int, nodes: list[Node]) -> bool:
    """Is it a plain new program, of a parent that starts several?"""
    if view.tokens[0] != "exec" or depth != 2 or view.sort != "plain":
        return False
    return sum(1 for child in nodes[2].children.values() if child.children) >= SPAWNS


def category_of(view: View, depth: int, busy: bool = False) -> str:
    """`busy`: its program brought something new of this kind in two windows lately."""
    return _category(view, depth) + (" busy" if busy else "")


def _category(view: View, depth: int) -> str:
    tokens = view.tokens
    kind = tokens[0]
    if kind == "exec":
        return f"exec {min(depth, 3)} {view.sort}"
    if kind == "file":
        return f"file {tokens[2]} {view.sort} {min(depth, 3) if depth < 3 else _level(view, depth)}"
    if kind == "privilege":
        return f"privilege {tokens[2]} {depth}"
    return f"{kind} {view.sort}{_bare(view)} {depth}"
