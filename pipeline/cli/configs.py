"""config check, show, schema."""

import difflib
import json as json_
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.context import OK, options, say
from pipeline.cli.service import Json

SECRETS = ("token_file", "app_token_file", "webhook_file")


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Settings: what is wrong, what is in force, what there is.", no_args_is_help=True)
    group.command()(check)
    group.command()(show)
    group.command()(schema)
    app.add_typer(group, name="config")


def check(file: Annotated[Path | None, typer.Argument(help="Instead of -c FILE.")] = None) -> int:
    """Everything that is wrong, each with its place. Exit 3 when something is."""
    if file is not None:
        options.config = file
    loaded = options.load()
    for name in SECRETS:
        path = getattr(loaded.settings.sinks.slack, name)
        if path is not None and Path(path).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            say(f"warning: sinks.slack.{name}: others can read {path}; chmod 600 {path}")
    for index, allow in enumerate(loaded.settings.danger.allow):
        if unknown := _no_such_rule(allow.rule):
            say(f"warning: danger.allow[{index}].rule: {unknown}")
    say(f"{', '.join(map(str, loaded.files)) or 'no file, the defaults'}: ok")
    return OK


def _no_such_rule(pattern: str) -> str | None:
    from models.danger import RULES

    names = [rule.name for rule in RULES]
    if any(fnmatchcase(name, pattern) for name in names):
        return None
    near = difflib.get_close_matches(pattern, names, 1, 0.5)
    return f"{pattern} is no rule; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}")


def show(
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not at its default.")] = False,
    json: Json = False,
) -> int:
    """Every setting in force, and where it was set. Secrets are masked."""
    from config.reference import settings, written
    from pipeline.cli.out import emit, table

    loaded = options.load()
    values = loaded.settings.model_dump(by_alias=True)
    rows = []
    for setting in settings():
        value: Any = values
        for part in setting.name.split("."):
            value = value[part]
        value = "(hidden)" if setting.secret and value is not None else _trimmed(value)
        place = _place(loaded.places, setting.name)
        if changed and place == "default":
            continue
        rows.append((setting.name, value, written(value, setting.unit), place))
    if json:
        for name, value, shown, place in rows:
            emit({"setting": name, "value": value, "written": shown, "source": place})
    else:
        table(("setting", "value", "from"), [(name, shown, place) for name, _, shown, place in rows])
    return OK


def _trimmed(value: Any) -> Any:
    """Without the overrides that were not given."""
    if isinstance(value, dict):
        kept = {name: _trimmed(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item is not None and item != {}}
    return [_trimmed(item) for item in value] if isinstance(value, list) else value


def _place(places: dict[str, Any], name: str) -> str:
    """Of the setting, or of what is below it (`workloads`, whose parts may come from several places)."""
    if name in places:
        return str(places[name])
    below = dict.fromkeys(str(place) for key, place in places.items() if key.startswith((name + ".", name + "[")))
    return ", ".join(below) or "default"


def schema(json: Json = False) -> int:
    """The JSON schema, for editors."""
    from config.reference import schema as found
    from pipeline.cli.out import write

    write(json_.dumps(found(), indent=None if json else 2) + "\n")
    return OK
