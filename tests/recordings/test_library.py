"""The library of recordings: what each service does all day gives no alert, what was done to it does."""

import json
from pathlib import Path
from typing import Any

import pytest

from config.load import load
from pipeline.recording import play
from probes.batch import decode
from probes.replay import read

LIBRARY = Path(__file__).with_name("library")
FACTS: dict[str, dict[str, Any]] = json.loads((LIBRARY / "library.json").read_text())


def alerts(name: str, *settings: str) -> list[dict[str, Any]]:
    chosen = [f"learn.max={FACTS[name]['learn_s']}s", *settings]
    return list(play(load(None, chosen).settings, read(LIBRARY / f"{name}.wonted.gz")).alerts.values())


def nanoseconds(alert: dict[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(alert["time"]).timestamp() * 1e9


@pytest.mark.parametrize("name", FACTS)
def test_a_service_is_quiet_until_it_is_attacked_and_the_attack_is_named(name: str) -> None:
    """After little more than a minute of learning."""
    told = alerts(name)
    before = [alert["what"] for alert in told if nanoseconds(alert) < FACTS[name]["attack"]]
    text = json.dumps([alert for alert in told if nanoseconds(alert) >= FACTS[name]["attack"]])

    assert [] == before
    assert [] == [word for word in FACTS[name]["tells"] if word not in text]


@pytest.mark.parametrize("name", FACTS)
def test_a_recording_gives_the_same_alerts_byte_for_byte(name: str) -> None:
    assert json.dumps(alerts(name)) == json.dumps(alerts(name))


def test_another_budget_gives_other_alerts() -> None:
    few, many = ({a["what"] for a in alerts("build", f"models.false_alerts_per_week={n}")} for n in (0.01, 100))

    assert few < many


@pytest.mark.parametrize("name", FACTS)
def test_a_recording_holds_one_workload_and_nothing_of_the_machine(name: str) -> None:
    batches = [decode(payload) for payload in read(LIBRARY / f"{name}.wonted.gz")]

    assert {name} == {event.workload for batch in batches for event in batch.events}
    assert {"node"} == {batch.host for batch in batches}
    assert len(batches) > 50


def test_the_library_is_small() -> None:
    assert sum(file.stat().st_size for file in LIBRARY.iterdir()) < 2 << 20
