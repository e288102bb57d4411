"""Every setting by its dotted name, from the schema: for `config/wonted.yaml`, `wonted config show` and suggestions.

`python -m config.reference` prints the reference that config/wonted.yaml holds; `make config` writes it.
"""

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from config.schema import SIZES, UNITS, Settings, _duration, _size

HEAD = """\
# Every setting of Wonted with its default: unit, meaning and why. Wonted runs without a config; copy the lines that you
# change to /etc/wonted/wonted.yaml or /etc/wonted/conf.d/*.yaml (read in order; later files win, lists are replaced
# whole). Also: -c FILE (this file only), -o learn.min=2d, WONTED_LEARN__MIN=2d in the environment; -o wins over the
# environment, and that over files. `wonted config show` prints what is in force and where it comes from, `wonted config
# check` what is wrong. Durations carry a unit (ms, s, m, h, d, w) and so do sizes (B, KiB, MiB, GiB). Relative paths
# count from the file that holds them. Written by `make config` from config/schema.py.
"""
EXAMPLES = {
    "models.kinds": "connect: {false_alerts_per_week: 0.5}\nlisten: {enabled: false}",
    "models.detectors": (
        '- {name: anomaly.HalfSpaceTrees, parameters: {n_trees: 10, height: 6, seed: 1}, workloads: "shop/*",\n'
        "   metrics: [execs, connects], false_alerts_per_week: 0.3}"
    ),
    "workloads": '"ci/*":\n  learn: {min: 2d}\n  models: {false_alerts_per_week: 0.1}',
    "danger.allow": (
        '- {rule: ptrace_stranger, workload: "debug/*", exe: /usr/bin/gdb, reason: "developers debug here"}\n- bpf_load'
    ),
}
WIDTH = 118


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    """Dotted: learn.min."""
    default: Any
    doc: str
    unit: str | None
    """duration, size or None."""
    secret: bool


def settings(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Setting]:
    """Every setting, in the schema's order."""
    for attribute, field in model.model_fields.items():
        name = prefix + (field.alias or attribute)
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from settings(section, name + ".")
        else:
            default = field.get_default(call_default_factory=True)
            yield Setting(name, default, field.description or "", _unit(field), name.endswith(".token"))


def _unit(field: FieldInfo) -> str | None:
    """Duration and Size are told by their validator, also inside `Duration | None`."""
    found = [*field.metadata, *(m for arg in get_args(field.annotation) for m in getattr(arg, "__metadata__", ()))]
    validators = [getattr(item, "func", None) for item in found]
    return "duration" if _duration in validators else "size" if _size in validators else None


def written(value: Any, unit: str | None) -> str:
    """A value as it is written in YAML: 86400 seconds are 1d."""
    if unit is not None and value is not None:
        scale = sorted((UNITS if unit == "duration" else SIZES).items(), key=lambda item: -item[1])
        for name, size in scale:
            if value and abs(value / size - round(value / size)) < 1e-9 and name != "w":
                return f"{round(value / size)}{name}"
        return "0s" if unit == "duration" and not value else f"{value}{'s' if unit == 'duration' else 'B'}"
    if isinstance(value, str) and value and value[0].isalpha() and not set(value) & set("#{}[],&*?|<>=!%@`\"'\\ "):
        return value if value.lower() not in ("yes", "no", "on", "off", "true", "false", "null") else json.dumps(value)
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.model_dump(by_alias=True, exclude_none=True, exclude_unset=True)


def _as_yaml(doc: str) -> str:
    """The schema's words speak Python, the file YAML."""
    return re.sub(r"\b(None|True|False)\b(?=:)", lambda m: {"None": "null"}.get(m[1], m[1].lower()), doc)


def render() -> str:
    """config/wonted.yaml."""
    lines, open_sections = [HEAD], list[str]()
    for setting in settings():
        *sections, key = setting.name.split(".")
        if open_sections and not sections:
            lines.append("")
        for depth, section in enumerate(sections):
            if open_sections[: depth + 1] != sections[: depth + 1]:
                lines.append(("" if depth else "\n") + "  " * depth + section + ":")
                open_sections = sections[: depth + 1]
        open_sections = sections
        indent = "  " * len(sections)
        lines += [indent + "# " + line for line in textwrap.wrap(_as_yaml(setting.doc), WIDTH - len(indent))]
        lines.append(f"{indent}{key}: {written(setting.default, setting.unit)}")
        lines += [f"{indent}#   {line}" for line in EXAMPLES.get(setting.name, "").splitlines()]
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """The JSON schema of a config file, with defaults as they are written there."""
    found = Settings.model_json_schema(by_alias=True)
    _defaults(found)
    return found


def _defaults(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _defaults(item)
    elif isinstance(node, dict):
        default = node.get("default")
        if "$ref" in node:
            node.pop("default", None)  # a section's defaults are those of its settings
        elif isinstance(default, (int, float)) and "anyOf" in node:
            forms = json.dumps(node["anyOf"])
            unit = "size" if "KiB" in forms else "duration" if "|h|d|w" in forms else None
            node["default"] = written(default, unit)
        for item in node.values():
            _defaults(item)


if __name__ == "__main__":
    print(render(), end="")
