"""People's decisions as YAML that fits in git: the same text whenever the same is in force.

    version: 1
    decisions:
    - workload: shop/web
      action: accept
      value: exec /usr/bin/node -> /bin/sh -c gzip
      author: ana
      reason: the new backup
      time: '2026-11-26T09:00:00.000000Z'
      id: de_0a1b

The text is plain ASCII: what a workload wrote into a value is escaped, and comes back as it was.
"""

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from config.source import Key, Place, Problem, Source, parse
from models.scopes import SCOPES
from pipeline.wide import MANY

VERSION = 1
ACTIONS = ("accept", "confirm", "forget", "lock", "snooze")
"""What is kept; learn, enforce and undo are done once."""
FIELDS = ("workload", "many", "action", "value", "scope", "kind", "tokens", "author", "reason", "time", "until", "id")
TEXTS = tuple(field for field in FIELDS if field not in ("tokens", "time", "until"))
TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)")
ID = re.compile(r"[\w-]{1,80}", re.ASCII)
HALF = re.compile("[\ud800-\udfff]")
"""No text that travels holds one: the probes write what is no UTF-8 as \\xNN."""
MOST = 10_000


class _Dumper(yaml.SafeDumper):
    """Indents nothing, folds nothing, and quotes what is not plain."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    plain = text.isascii() and text.isprintable()
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def to_yaml(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of `models.decisions.rows` and `pipeline.wide.row`, whatever their order. What is for many workloads is
    written once."""
    given = list(rows)
    wide = {row["id"] for row in given if row.get("many")}
    kept = [{name: row.get(name) for name in FIELDS} for row in given if row.get("many") or row["id"] not in wide]
    kept.sort(key=lambda row: [str(row[name] or "") for name in FIELDS])
    for row in kept:
        if row["scope"] == "value":
            row["scope"] = None
    decisions = [{name: value for name, value in row.items() if value is not None} for row in kept]
    document = {"version": VERSION, "decisions": decisions}
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=10**9)


class Read:
    """What a file says: decisions with the place of each, and all that is wrong with it."""

    def __init__(self) -> None:
        self.decisions: list[dict[str, Any]] = []
        self.places: list[Place] = []
        self.problems: list[Problem] = []


def from_yaml(text: str, name: str) -> Read:
    """Times become nanoseconds. Nothing of it is to be used where there are problems."""
    source = parse(text, name)
    read = Read()
    read.problems = list(source.problems)
    value = source.value
    if not isinstance(value, dict) or not isinstance(value.get("decisions"), list):
        if not read.problems:
            expected = 'expected "version: 1" and a list "decisions:", as `wonted baseline export` writes it'
            read.problems.append(Problem(_at(source, (), name), f"{expected}; got {_kind(value)}"))
        return read
    for key in value:
        if key not in ("version", "decisions"):
            read.problems.append(
                Problem(source.places[(key,)][0], f"{key}: no such field; expected version and decisions")
            )
    if value.get("version") != VERSION:
        where = _at(source, ("version",) if "version" in value else (), name)
        read.problems.append(Problem(where, f"version: expected {VERSION}, got {value.get('version')!r}; export again"))
    if len(value["decisions"]) > MOST:
        read.problems.append(Problem(_at(source, ("decisions",), name), f"expected at most {MOST} decisions"))
        return read
    for index, row in enumerate(value["decisions"]):
        place = _at(source, ("decisions", index), name)
        one = _Row(source, ("decisions", index), place)
        decision = one.read(row)
        read.problems += one.problems
        if decision is not None and not one.problems:
            read.decisions.append(decision)
            read.places.append(place)
    return read


def _at(source: Source, path: Key, name: str) -> Place:
    return source.places[path][1] if path in source.places else Place(name, 1, 1)


def _kind(value: object) -> str:
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value), f"{value!r}")


class _Row:
    """One decision of a file."""

    def __init__(self, source: Source, path: Key, place: Place) -> None:
        self.source, self.path, self.place = source, path, place
        self.problems: list[Problem] = []

    def wrong(self, field: str, what: str) -> None:
        path = (*self.path, field)
        place = self.source.places[path][1] if path in self.source.places else self.place
        self.problems.append(Problem(place, f"{field}: {what}"))

    def read(self, row: Any) -> dict[str, Any] | None:
        if not isinstance(row, dict):
            self.problems.append(Problem(self.place, f"expected a decision (workload, action, ...), got {_kind(row)}"))
            return None
        for field in row:
            if field not in FIELDS:
                near = difflib.get_close_matches(str(field), FIELDS, 1, 0.6)
                mend = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(FIELDS)}"
                self.wrong(str(field), f"no such field; {mend}")
        made: dict[str, Any] = {
            field: self.text(row, field) for field in FIELDS if field not in ("tokens", "time", "until")
        }
        made["scope"] = made["scope"] or "value"
        self.among(made, "action", ACTIONS)
        self.among(made, "scope", SCOPES)
        if made["many"] is not None:
            self.among(made, "many", MANY)
        if not made["workload"]:
            self.wrong("workload", "missing; expected the name of a workload, as `wonted workloads ls` prints it")
        if made["action"] in ("accept", "confirm", "forget") and not made["value"]:
            self.wrong("value", "missing; expected a value, as `wonted baseline show` prints it")
        made["tokens"] = self.tokens(row)
        made["time"], made["until"] = self.time(row, "time"), self.time(row, "until")
        if made["action"] == "snooze" and made["until"] is None:
            self.wrong("until", 'missing; a snooze has an end, such as "2026-11-26T09:00:00Z"')
        if made["id"] is not None and not ID.fullmatch(made["id"]):
            self.wrong(
                "id", f"got {made['id']!r}; expected letters, digits, _ and -, as `wonted baseline export` writes it"
            )
        if made["id"] is None:
            about = repr([made[field] for field in FIELDS if field != "id"])
            made["id"] = f"de_{hashlib.sha256(about.encode('utf-8', 'backslashreplace')).hexdigest()[:32]}"
        return made

    def text(self, row: dict[str, Any], field: str) -> str | None:
        value = row.get(field)
        if value is None:
            return None
        if isinstance(value, str):
            if HALF.search(value):
                self.wrong(field, "half a character (U+D800 to U+DFFF); write bytes that are no UTF-8 as \\xNN")
            return value
        self.wrong(field, f'expected a text, got {_kind(value)}; write it in quotes: "{value}"')
        return None

    def among(self, made: dict[str, Any], field: str, names: tuple[str, ...]) -> None:
        if made[field] not in names:
            given = "missing" if made[field] is None else f"got {made[field]!r}"
            self.wrong(field, f"{given}; expected one of {', '.join(names)}")

    def tokens(self, row: dict[str, Any]) -> list[str] | None:
        value = row.get("tokens")
        if value is None:
            return None
        if (
            isinstance(value, list)
            and 2 < len(value) <= 40
            and all(isinstance(token, str) and not HALF.search(token) for token in value)
        ):
            return value
        self.wrong("tokens", "expected the list of texts that `wonted baseline export` wrote")
        return None

    def time(self, row: dict[str, Any], field: str) -> int | None:
        value = row.get(field)
        if value is None:
            return None
        match = TIME.fullmatch(value) if isinstance(value, str) else None
        try:
            if match is None:
                raise ValueError
            seconds = datetime.strptime(f"{match[1]} {match[2]} +0000", "%Y-%m-%d %H:%M:%S %z").astimezone(UTC)
            return int(seconds.timestamp()) * 10**9 + int((match[3] or "").ljust(9, "0"))
        except ValueError:
            self.wrong(field, f'expected a time in UTC such as "2026-11-26T09:00:00Z", got {value!r}')
            return None
