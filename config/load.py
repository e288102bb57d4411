"""Settings from their sources: files, environment, command line. Everything wrong is told at once, with its place."""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from config.folders import ETC
from config.reference import settings as every_setting
from config.schema import Settings
from config.source import Key, Place, Problem, Source, dotted, parse

MOST_BYTES = 1 << 20
PATHS = ("token_file", "app_token_file", "webhook_file")


class ConfigError(Exception):
    """One or more problems, each with its place."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.problems = tuple(sorted(unique, key=lambda p: (p.place.source, p.place.line or 0, p.place.column or 0)))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Loaded:
    settings: Settings
    places: dict[str, Place] = field(default_factory=dict)
    """Dotted name -> where it was set; a name that is missing here has its default."""
    files: tuple[Path, ...] = ()


Check = Callable[[Settings], Iterable[tuple[Key, bool, str]]]
"""What another layer knows of settings that are right by the schema: (path, whether its name is meant and not its
value, what is wrong)."""


def load(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    checks: Sequence[Check] = (),
) -> Loaded:
    """The settings in force. `path`: this file only; None: /etc/wonted and its conf.d, where they exist.

    `overrides` are a.b=value (value parsed as YAML); the environment's WONTED_A__B comes between them and the files.
    Raises ConfigError.
    """
    files = [path] if path else [f for f in (ETC / "wonted.yaml", *sorted(ETC.glob("conf.d/*.yaml"))) if f.exists()]
    sources = [_file(f) for f in files]
    sources += _environment(os.environ if environ is None else environ)
    sources += [_override(text) for text in overrides]
    merged = Source(value={})
    for source in sources:
        merged.problems += source.problems
        if source.value is None:
            continue
        if not isinstance(source.value, dict):
            merged.problems.append(Problem(source.places[()][1], "expected settings such as `learn: {min: 2d}`"))
            continue
        _merge(merged.value, source.value, (), merged, source)
    found = _validate(merged)
    if found is not None and not merged.problems:
        for check in checks:
            for key, named, what in check(found):
                merged.problems.append(Problem(_place(merged, key, 0 if named else 1), f"{dotted(key)}: {what}"))
    if merged.problems or found is None:
        raise ConfigError(merged.problems)
    places = {dotted(key): place for key, (_, place) in merged.places.items()}
    return Loaded(found, places, tuple(files))


def _file(path: Path) -> Source:
    try:
        with path.open("rb") as file:
            read = file.read(MOST_BYTES + 1)
    except OSError as error:
        return Source(problems=[Problem(Place(str(path)), error.strerror or str(error))])
    if len(read) > MOST_BYTES:
        return Source(problems=[Problem(Place(str(path)), f"larger than {MOST_BYTES >> 20} MiB, which no config is")])
    try:
        text = read.decode()
    except UnicodeDecodeError as error:
        return Source(problems=[Problem(Place(str(path)), f"not UTF-8 at byte {error.start}")])
    source = parse(text, str(path))
    if isinstance(source.value, dict):
        _anchor(source.value.get("sinks"), path.parent)
    return source


def _anchor(sinks: Any, folder: Path) -> None:
    """Relative paths count from the file that holds them."""
    if not isinstance(sinks, dict):
        return
    for section, names in (("slack", PATHS), ("json", ("path",))):
        values = sinks.get(section)
        if not isinstance(values, dict):
            continue
        for name in names:
            path = values.get(name)
            if isinstance(path, str) and path not in ("", "-"):
                values[name] = str(folder.absolute() / path)


def _environment(environ: Mapping[str, str]) -> list[Source]:
    """WONTED_A__B, and WONTED_A for the settings at the top; other WONTED_ names belong to somebody else."""
    found = []
    for name, text in sorted(environ.items()):
        path = tuple(name.removeprefix("WONTED_").lower().split("__"))
        if name.startswith("WONTED_") and (len(path) > 1 or path[0] in Settings.model_fields):
            found.append(_single(path, text, name))
    return found


def _override(text: str) -> Source:
    name, equals, value = text.partition("=")
    gaps = "" in re.sub(r'"[^"]*"', "x", name.strip()).split(".") and not name.startswith("workloads.")
    if not equals or gaps:
        return Source(problems=[Problem(Place("-o"), f"{text}: expected a.b=value")])
    return _single(split(name.strip()), value, "-o")


def split(name: str) -> tuple[str, ...]:
    """The parts of a dotted name. A part with dots is quoted; a workload's pattern need not be.

    >>> split("workloads.nginx.service.learn.max")
    ('workloads', 'nginx.service', 'learn', 'max')
    """
    if match := re.fullmatch(r"workloads\.([^\"].*)\.(learn|models)((?:\.[^.]+)*)", name):
        return ("workloads", match[1], match[2], *match[3].split(".")[1:])
    return tuple(part.strip('"') for part in re.findall(r'"[^"]*"|[^.]+', name))


def _single(path: tuple[str, ...], text: str, name: str) -> Source:
    """One setting given as text. Where a file needs quotes around "-" and "#name", here there is no doubt."""
    bare = text.strip() == "-" or text.startswith("#")
    source = parse(f"'{text.strip()}'" if bare else text, name)
    place = Place(name)
    source.problems = [Problem(place, f"{dotted(path)}: {p.what}") for p in source.problems]
    above = [path[: depth + 1] for depth in range(len(path))]
    source.places = dict.fromkeys([*above, *((*path, *key) for key in source.places)], (place, place))
    for part in reversed(path):
        source.value = {part: source.value}
    return source


def _merge(into: dict[str, Any], values: dict[str, Any], path: Key, merged: Source, source: Source) -> None:
    """Mappings are merged key by key, an empty section changes nothing, anything else is replaced whole."""
    for key, value in values.items():
        here = (*path, key)
        if isinstance(into.get(key), dict) and (isinstance(value, dict) or value is None):
            merged.places[here] = source.places[here]
            _merge(into[key], value or {}, here, merged, source)
            continue
        into[key] = value
        for old in [old for old in merged.places if old[: len(here)] == here]:
            del merged.places[old]
        merged.places.update({new: place for new, place in source.places.items() if new[: len(here)] == here})


def _validate(merged: Source) -> Settings | None:
    _fill_sections(merged.value, Settings)
    try:
        settings = Settings.model_validate(merged.value, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        known = {problem.place for problem in merged.problems}
        found = [_explain(detail, merged) for detail in error.errors(include_url=False)]
        merged.problems += [problem for problem in found if problem.place not in known]
        return None
    merged.problems += _contradictions(settings, merged)
    return settings


def _fill_sections(values: dict[str, Any], model: type[BaseModel]) -> None:
    """`learn:` with nothing but comments below it is an empty section, not a wrong type."""
    for attribute, info in model.model_fields.items():
        name, section = info.alias or attribute, info.annotation
        if name in values and isinstance(section, type) and issubclass(section, BaseModel):
            if values[name] is None:
                values[name] = {}
            if isinstance(values[name], dict):
                _fill_sections(values[name], section)


def _explain(detail: ErrorDetails, merged: Source) -> Problem:
    path: Key = tuple(part for part in detail["loc"] if part != "[key]")
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden" or detail["loc"][-1:] == ("[key]",):
        return Problem(_place(merged, path, 0), f"{dotted(path)}: no such setting; {_suggest(path, detail)}")
    text = detail["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if kind == "model_type":
        text = "expected settings below it"
    elif kind == "string_type" and given is not None:
        text = "expected text; put it in quotes"
    elif kind == "string_pattern_mismatch" and path == ("broker",):
        text = "expected embedded:// or kafka://host:port,..."
    elif kind == "bool_type":
        text = "expected true or false"
    text = (
        text.replace("a valid ", "a ").replace("a integer", "an integer").replace("a dictionary", "settings below it")
    )
    return Problem(_place(merged, path, 1), f"{dotted(path)}: {text}, got {_short(given)}")


def _place(merged: Source, path: Key, which: int) -> Place:
    """Of the name (0) or of the value (1); of the nearest section above where the path itself is nowhere."""
    for depth in range(len(path), 0, -1):
        if path[:depth] in merged.places:
            return merged.places[path[:depth]][which]
    return Place("config")


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _suggest(path: Key, detail: ErrorDetails) -> str:
    """The setting that was probably meant: a neighbour's name, else the same name elsewhere, else what there is."""
    *parents, last = path
    names = [setting.name for setting in every_setting()]
    if detail["type"] == "literal_error":
        here = re.findall(r"'([^']+)'", str(detail.get("ctx", {}).get("expected", "")))
    else:
        here = _neighbours(tuple(parents))
    for match in difflib.get_close_matches(str(last), here, 1, 0.6):
        return f"did you mean {dotted((*parents, match))}?"
    tail = dotted(path[-2:]) if len(path) > 1 else str(last)
    for name in names:
        if name.endswith("." + tail) or name.rpartition(".")[2] == last:
            return f"did you mean {name}?"
    tails = {name.rpartition(".")[2]: name for name in names}
    for match in difflib.get_close_matches(str(last), tails, 1, 0.8):
        return f"did you mean {tails[match]}?"
    return f"there are {', '.join(here)}" if here else "see config/wonted.yaml"


def _neighbours(parents: Key) -> list[str]:
    """Names allowed below `parents`, found by walking the schema."""
    model: type[BaseModel] | None = Settings
    names = list(parents)
    while names and model:
        fields = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
        annotation = fields.get(str(names.pop(0)))
        model = _section(annotation)
        if model is not annotation and names:
            names.pop(0)  # a mapping's key or a list's index: each leads to the same section
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section in dict[str, Section], list[Annotated[Section, ...]] or Section itself."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_section(arg) for arg in getattr(annotation, "__args__", ())]
    return next((model for model in inner if model), None)


def _contradictions(found: Settings, merged: Source) -> list[Problem]:
    """What no single type can tell."""
    problems = []

    def problem(name: str, what: str) -> None:
        problems.append(Problem(_place(merged, tuple(name.split(".")), 1), f"{name}: {what}"))

    slack = found.sinks.slack
    for name in PATHS:
        path = getattr(slack, name)
        if path is not None and (reason := _wrong_secret(Path(path), is_url=name == "webhook_file")):
            problem(f"sinks.slack.{name}", f"{path}: {reason}")
    if slack.token and slack.token_file:
        problem("sinks.slack.token", "give either token or token_file, not both")
    if (slack.token or slack.token_file) and not slack.channel:
        problem(
            "sinks.slack.channel",
            'needed with a token: a channel id, or a "#name" in quotes (a bare # begins a comment)',
        )
    if not slack.base_url.startswith(("https://", "http://")):
        problem("sinks.slack.base_url", f"expected a URL, got {_short(slack.base_url)}")
    ring = found.probes.ring
    if ring < 4096 or ring & (ring - 1):
        problem("probes.ring", f"expected a power of two of at least 4KiB, got {ring}")
    if not 0.01 <= found.probes.flush <= 60:
        problem("probes.flush", f"expected 10ms to 60s, got {found.probes.flush:g}s")
    if found.snapshot < 0.1:
        problem("snapshot", f"expected 100ms or more, got {found.snapshot:g}s")
    return problems


def _wrong_secret(path: Path, is_url: bool) -> str | None:
    """Why this file holds no secret; the words never quote what it holds."""
    try:
        words = path.read_text(encoding="ascii").split()
    except OSError as error:
        return error.strerror
    except UnicodeDecodeError:
        return "is not text"
    if len(words) != 1:
        return "holds several words; expected the secret alone" if words else "is empty"
    if is_url and not words[0].startswith(("https://", "http://")):
        return "holds no URL"
    return None
