"""What all kinds share: the view of an event, what is known, and the weight of a departure."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from models import paths, programs
from models.tree import Node, Tree
from probes.event import Event

REFUSED = (-1, -13, -30)
"""EPERM, EACCES, EROFS: somebody said no. Other errors say that something was not there."""


class View(NamedTuple):
    """What an event is to the baseline."""

    tokens: tuple[str, ...]
    sort: str
    """plain, or what makes it special: secret, startup, writable, shell, download, runnable ..."""
    path: str = ""
    """What was acted on, as it was."""


class Known(NamedTuple):
    """What a weigher may ask about the workload."""

    tree: Tree
    programs: set[str]
    host: bool
    doubted: int | None = None
    """The window whose values are in doubt themselves: they excuse nobody."""

    def below(self, *tokens: str) -> Mapping[str, Node]:
        """The children of a place; none where it is not known."""
        node = self.tree.root
        for token in tokens:
            found = node.child(token)
            if found is None:
                return {}
            node = found
        return node.children


class Weight(NamedTuple):
    odds: float
    what: str
    near: str | Callable[[], str]
    """The nearest normal, as the end of a sentence; or what makes it, where that means going through a whole place:
    most of what is weighed is never told."""
    severity: str
    attack: tuple[str, ...] = ()

    def said(self) -> "Weight":
        """The same in words, by what is known now."""
        return self if isinstance(self.near, str) else self._replace(near=self.near())


@lru_cache(maxsize=4096)
def normal(program: str) -> str:
    """A program's name without what changes from build to build.

    >>> normal("/build/job-4711/test"), normal("/usr/bin/python3.11"), normal("(docker exec)")
    ('/build/job-<n>/test', '/usr/bin/python3.11', '(docker exec)')
    """
    if not program.startswith("/") or paths.is_system(program):
        return program
    return "/" + "/".join(paths.segments(program))


def who(event: Event) -> str:
    return normal(programs.program(event.process))
