"""config/wonted.yaml, the schema and what `config show` prints say the same."""

import tomllib
from pathlib import Path

from config import VERSION
from config.load import load
from config.reference import render, schema, settings, written
from config.schema import Settings
from models.danger import RULES

ROOT = Path(__file__).parents[2]


def test_the_reference_holds_every_setting_with_its_default_and_reason() -> None:
    """Mended by `make config`."""
    assert render() == (ROOT / "config" / "wonted.yaml").read_text()


def test_the_reference_is_a_valid_config_of_all_defaults() -> None:
    found = load(ROOT / "config" / "wonted.yaml", (), {})

    assert found.settings == Settings()
    assert {setting.name for setting in settings()} <= set(found.places)


def test_the_examples_in_the_reference_are_valid(tmp_path: Path) -> None:
    lines = (ROOT / "config" / "wonted.yaml").read_text().splitlines()
    file = tmp_path / "wonted.yaml"
    kept = []
    for line in lines:
        bare = line.lstrip()
        if bare.startswith("#   "):
            kept.append(line.replace("#   ", "  ", 1))
        elif bare.endswith((": {}", ": []")):
            kept.append(line[:-3])
        else:
            kept.append(line)
    file.write_text("\n".join(kept))

    found = load(file, (), {}).settings

    assert set(found.models.kinds) == {"connect", "listen"}
    assert found.workloads["ci/*"].learn.min == 172_800
    assert [allow.rule for allow in found.danger.allow] == ["ptrace_stranger", "bpf_load"]
    assert {"ptrace_stranger", "bpf_load"} <= {rule.name for rule in RULES}


def test_every_setting_says_what_it_is() -> None:
    assert [setting.name for setting in settings() if len(setting.doc) < 15] == []


def test_values_are_written_as_they_are_read() -> None:
    durations = [written(value, "duration") for value in (0, 0.2, 90, 86_400.0, 129_600.0, 604_800, None)]
    sizes = [written(value, "size") for value in (0, 16 << 20, 1 << 30, 5000)]

    assert durations == ["0s", "200ms", "90s", "1d", "36h", "7d", "null"]
    assert sizes == ["0B", "16MiB", "1GiB", "5000B"]


def test_the_json_schema_takes_durations_with_units_and_refuses_unknown_names() -> None:
    found = schema()
    learn = found["$defs"]["Learn"]

    assert learn["properties"]["min"]["default"] == "1d"
    assert learn["additionalProperties"] is False
    assert "json" in found["$defs"]["Sinks"]["properties"]


def test_the_version_is_the_packages() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
