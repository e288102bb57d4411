"""One YAML text as plain values, with the place of every key and value, so that an error can say where."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

KNOWN_TAGS = {"tag:yaml.org,2002:" + name for name in ("null", "bool", "int", "float", "str", "timestamp")}
Key = tuple[str | int, ...]
MOST_NODES = 100_000
"""More than any config holds; aliases of aliases could otherwise grow without end."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a setting was written: a file's line and column (from 1), or "-o", or an environment variable."""

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    place: Place
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


@dataclass(slots=True)
class Source:
    """What one source sets, and for each path the places of its name and of its value."""

    value: Any = None
    places: dict[Key, tuple[Place, Place]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def dotted(path: Key) -> str:
    """The path as people write it: names with dots in them are quoted."""
    parts = [f"[{p}]" if isinstance(p, int) else f'"{p}"' if "." in p else p for p in path]
    return ".".join(parts).replace(".[", "[")


def parse(text: str, name: str) -> Source:
    """The values of one YAML document; whatever is wrong with it goes into `problems`."""
    source = Source()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        source.problems.append(_unreadable(error, name))
        return source
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(name, before.count("\n") + 1, error.position - before.rfind("\n"))
        source.problems.append(
            Problem(place, f"not YAML: the character U+{ord(text[error.position]):04X} is not allowed")
        )
        return source
    except (yaml.YAMLError, RecursionError) as error:
        source.problems.append(Problem(Place(name), f"not YAML: {error}"))
        return source
    if node is not None:
        try:
            source.value = _Reader(name, source).read(node, (), Place(name, 1, 1))
        except _TooLarge as error:
            source.problems.append(Problem(error.place, f"too large: at most {MOST_NODES} names and values are read"))
    return source


class _TooLarge(Exception):
    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


def _unreadable(error: yaml.MarkedYAMLError, name: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = Place(name, mark.line + 1, mark.column + 1) if mark else Place(name)
    if "'\\t'" in str(error.problem):
        return Problem(place, "a tab; YAML indents with spaces only")
    if "sequence entries are not allowed" in str(error.problem):
        return Problem(place, 'not YAML: a list cannot begin here; write "-" in quotes if you mean that sign')
    return Problem(place, "not YAML: " + ", ".join(part for part in (error.context, error.problem) if part))


class _Reader:
    def __init__(self, name: str, source: Source) -> None:
        self.name, self.source, self.open, self.seen = name, source, set[int](), 0
        self.scalars = yaml.SafeLoader("")

    def read(self, node: yaml.Node, path: Key, name: Place | None = None) -> Any:
        place = self.place(node)
        self.source.places[path] = (name or place, place)
        self.seen += 1
        if id(node) in self.open:
            self.problem(place, path, "an alias that holds itself")
            return None
        if self.seen > MOST_NODES:
            raise _TooLarge(place)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
            return self.scalar(node, path)
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, path: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem(self.place(key), path, "a name is expected here, not a list or a mapping")
                continue
            here = (*path, key.value)
            if key.value in values:
                self.problem(self.place(key), here, f"given twice; the first is at {self.source.places[here][0]}")
                continue
            values[key.value] = self.read(value, here, self.place(key))
        return values

    def scalar(self, node: yaml.Node, path: Key) -> Hashable:
        if node.tag not in KNOWN_TAGS:
            self.problem(self.place(node), path, f"the tag {node.tag} is not known here")
            return None
        if node.tag.endswith((":timestamp", ":str")):
            return str(node.value)
        try:
            value: Hashable = self.scalars.construct_object(node)
        except ValueError as error:
            self.problem(self.place(node), path, str(error))
            return None
        return value

    def place(self, node: yaml.Node) -> Place:
        return Place(self.name, node.start_mark.line + 1, node.start_mark.column + 1)

    def problem(self, place: Place, path: Key, what: str) -> None:
        self.source.problems.append(Problem(place, f"{dotted(path)}: {what}" if path else what))
