"""How much "this is normal" covers: the value itself, one step wider, whoever does it, or a pattern.

By example of `exec /usr/bin/python3.11 -> /usr/bin/wget -q <w>`:
value    exactly this: command, parent and workload.
place    one step wider: wget with any arguments, started by python3.11. A file: any name directly in its directory. A
         connection: any port of that host. A DNS name: any name of its domain. A privileged call: in whatever way.
anyone   whoever does it: wget with any arguments, whoever starts it. A file, a peer, a port: by any program.
pattern  what matches a shell pattern of values: 'file /usr/bin/node write /data/*'.

`place` and `anyone` do not cover what is special at its place (a script among uploads, a secret), unless the value that
they were widened from is special in the same way.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from models.tree import SPECIAL, wildcard

SCOPES = ("value", "place", "anyone", "pattern")
LITERAL = 3
"""Characters of a pattern, besides its kind, that stand for themselves."""


def covers(scope: str, value: str, of: Sequence[str] | None, tokens: tuple[str, ...], text: str) -> bool:
    """Does a decision on `value` (whose tokens are `of`) cover the value `text`, whose tokens are `tokens`?

    >>> wget = ["exec", "/bin/sh", "!/usr/bin/wget", "-q"]
    >>> covers("place", "", wget, ("exec", "/bin/sh", "!/usr/bin/wget", "-O url:<ip>"), "")
    True
    >>> covers("place", "", wget, ("exec", "/usr/bin/node", "!/usr/bin/wget", "-q"), "")
    False
    """
    if scope == "value":
        return text == value
    if scope == "pattern":
        return fnmatchcase(text, value)
    if of is None or len(of) != len(tokens) or of[0] != tokens[0]:
        return False
    if scope == "place":
        return list(tokens[:-1]) == list(of[:-1]) and _alike(tokens[-1], of[-1])
    if tokens[0] == "exec":
        return tokens[2] == of[2] and _alike(tokens[3], of[3])
    return list(tokens[2:]) == list(of[2:])


def _alike(token: str, given: str) -> bool:
    """May one stand for the other? What is special, secret or refused stands for itself, or its like."""
    wild = wildcard(given)
    return token == given or (
        wild is not None and wildcard(token) == wild and token.startswith("refused") == given.startswith("refused")
    )


def check(scope: str, value: str, of: Sequence[str] | None) -> None:
    """Raises ValueError, with what to do instead, where a decision may not be this wide."""
    if scope not in SCOPES:
        raise ValueError(f"scope {scope!r}: expected one of {', '.join(SCOPES)}")
    kind, _, rest = value.partition(" ")
    if scope != "value" and kind in ("danger", "rate", "drift"):
        raise ValueError(f"{kind} values are accepted one by one (scope value); danger.allow in the config is wider")
    if scope == "pattern" and sum(c not in "*?[]! " for c in rest) < LITERAL:
        raise ValueError(f"pattern {value!r} is all of {kind}; say at least the program, or switch the kind off")
    if scope not in ("place", "anyone"):
        return
    if of is None:
        raise ValueError(f"{value} is not known here, so it cannot be widened; use scope value, or a pattern")
    if scope == "anyone" and kind in ("dns", "accept"):
        raise ValueError(f"a {kind} value names no program; use scope value or place")
    if scope == "place" and wildcard(of[-1]) is None:
        raise ValueError(f"{value}: each name at that place is worth a decision of its own; use scope value")


def words(scope: str, value: str, of: Sequence[str] | None) -> str:
    """What is covered, as a person would say it.

    >>> words("place", "", ["exec", "/bin/sh", "!/usr/bin/wget", "-q"])
    '/usr/bin/wget with any arguments, started by /bin/sh'
    >>> words("anyone", "", ["connect", "/app/x", "tcp", "db", "5432"])
    'connections of any program to db:5432'
    """
    if scope == "pattern":
        return f"all that matches {value}"
    if scope == "value" or not of:
        return value
    kind, *rest = (token.lstrip(SPECIAL) for token in of)
    return (_anyone if scope == "anyone" else _place)(kind, rest)


def _anyone(kind: str, rest: list[str]) -> str:
    if kind == "exec":
        return f"{rest[1]} with any arguments, whoever starts it"
    if kind == "file":
        return f"{rest[1]} of /{'/'.join(rest[2:])} by any program"
    if kind == "connect":
        return f"connections of any program to {':'.join(rest[2:])}"
    if kind == "listen":
        return f"a listener of any program on {':'.join(rest[2:])}"
    return f"{' '.join(rest[1:])} by any program"


def _place(kind: str, rest: list[str]) -> str:
    if kind == "exec":
        return f"{rest[1]} with any arguments, started by {rest[0]}"
    if kind == "file":
        return f"{rest[1]} of any name directly in /{'/'.join(rest[2:-1])} by {rest[0]}"
    if kind == "connect":
        return f"connections of {rest[0]} to {rest[2]}, any port"
    if kind == "listen":
        return f"listeners of {rest[0]} on any port ({rest[2]})"
    if kind == "privilege":
        return f"{rest[1]} by {rest[0]}, in whatever way"
    return f"any client of port {rest[0]}" if kind == "accept" else f"any name of {rest[0]}"
