"""What happens in a container, as events and alerts: one service, one shop, looked at by JSON lines."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.demo.service import WONTED, Line, Lines, Service
from tests.benchmarks.common import Cell
from tests.e2e.conftest import PYTHON, Shop, Start, cli, objects, until

ALERT = json.loads(
    """{"v": 0, "id": 0, "incident": 0, "time": 0, "told": 0, "severity": 0, "mode": 0, "would_alert": 0, "workload": 0,
 "kind": 0, "detector": 0, "what": 0, "why": 0, "expected_per_week": 0, "budget": 0, "command": 0, "argv": 0,
 "argv_cut": 0, "exe": 0, "pid": 0, "vpid": 0, "user": {"uid": 0, "name": 0}, "tree": 0, "object": 0,
 "container": {"id": 0, "name": 0, "image": 0, "digest": 0, "ip": 0}, "k8s": 0, "host": 0, "remote": 0, "attack": 0,
 "seen": 0, "lost": 0, "update": 0}"""
)
"""The keys of INTERFACES.md."""
EVENT = {
    "time", "workload", "kind", "action", "pid", "vpid", "ppid", "tid", "uid", "comm", "exe", "argv", "object", "flags",
    "result", "remote", "container", "k8s", "lost",
}  # fmt: skip
LEARN_S = 12


@pytest.fixture(scope="module")
def service(start: Start) -> Service:
    return start({"learn.max": f"{LEARN_S}s", "sinks.terminal.enabled": "true"})


@pytest.fixture(scope="module")
def shop(service: Service, open_shop: Callable[[], Shop]) -> Iterator[Shop]:
    """Learned for a few seconds under normal traffic, and enforcing."""
    shop = open_shop()
    shop.traffic(True)
    shop.until(service, lambda row: row["mode"] != "learning", LEARN_S + 30)
    yield shop
    shop.traffic(False)


@pytest.fixture
def events(service: Service) -> Iterator[Callable[..., Lines]]:
    followers = []

    def follow(*options: str) -> Lines:
        command = [*WONTED, "--data", str(service.data), "events", "-f", "--json", *options]
        followers.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        stdout = followers[-1].stdout
        assert stdout is not None
        return Lines(stdout, "wonted events")

    yield follow
    for follower in followers:
        follower.kill()
        follower.wait()


def told(line: Line) -> bool:
    return "severity" in line.object and not line.object.get("finding")


def seen_from(lines: Lines, act: Callable[[], object], wanted: Callable[[Line], bool]) -> None:
    """Repeat an act until its event comes: then the stream is live."""
    for _ in range(60):
        act()
        try:
            lines.wait(wanted, 0.5, "event")
            return
        except Exception as error:
            last = error
    raise last


def test_the_random_names_of_uploads_raise_nothing(service: Service, shop: Shop) -> None:
    """First of this file: nothing but normal traffic has happened so far."""
    before = shop.traffic(True)["served"]
    since = len(service.out.all)
    name = shop.until(service, lambda row: True)["workload"]

    until(lambda: shop.town.say(count=True)["served"], lambda served: served >= before + 150)
    until(lambda: sum(service.ask("status")["lag"].values()), lambda lag: lag == 0)

    raised = [line.object for line in service.out.all[since:] if line.object.get("workload") == name and told(line)]
    assert [] == [(alert["what"], alert["why"]) for alert in raised]


def test_23_execs_in_a_container_are_23_events_with_their_argv(shop: Shop, events: Callable[..., Lines]) -> None:
    lines = events("--kind", "exec")
    mark = os.urandom(4).hex()

    def about(line: Line, word: str) -> bool:
        return word in (line.object.get("argv") or ())

    seen_from(lines, lambda: shop.run("/bin/true", f"live-{mark}"), lambda line: about(line, f"live-{mark}"))
    since = len(lines.all)
    commands = [["/bin/true", mark, str(number), "ä b\n$HOME"] for number in range(23)]
    shop.evaluate(f"[__import__('subprocess').run(command).returncode for command in {commands!r}]")
    shop.run("/bin/true", f"end-{mark}")
    lines.wait(lambda line: about(line, f"end-{mark}"), 20, "last exec")

    found = [line.object for line in lines.all[since:] if about(line, mark)]
    assert commands == [event["argv"] for event in found if event["action"] == "exec"]
    assert all(EVENT <= event.keys() for event in found)
    assert all("10.213.77.2" in event["container"]["ip"] for event in found)
    assert all(event["exe"].endswith("/true") and event["vpid"] != event["pid"] for event in found)


def test_a_shell_is_told_with_every_key_and_the_exact_command(service: Service, shop: Shop) -> None:
    mark = f"echo {os.urandom(4).hex()} 'two  words'"
    since = len(service.out.all)

    shop.run("/bin/sh", "-c", mark)

    alert = service.out.wait(
        lambda line: told(line) and mark in (line.object["argv"] or ()), 15, "alert on the shell", since
    ).object
    missing = ALERT.keys() - alert.keys()
    assert not missing
    assert {"id", "name", "image", "digest", "ip"} <= alert["container"].keys()
    assert "10.213.77.2" in alert["container"]["ip"] and alert["container"]["id"]
    assert ["/bin/sh", "-c", mark] == alert["argv"] and "two  words" in alert["command"]
    assert 0 == alert["user"]["uid"] and alert["vpid"] not in (0, 1, alert["pid"])
    assert alert["tree"][0]["command"].endswith("shop.py") and alert["tree"][-1]["pid"] == alert["pid"]
    assert not alert["would_alert"] and alert["mode"] in ("forced", "enforcing")
    assert alert["severity"] in ("low", "medium", "high", "critical") and not alert["update"]


def test_each_step_of_the_demo_is_told(service: Service, shop: Shop) -> None:
    from pipeline.demo.attack import steps

    for step in steps():
        since = len(service.out.all)
        shop.town.say(get=step.path)
        service.out.wait(
            lambda line, step=step: "severity" in line.object and step.raised(line.object),  # type: ignore[misc]
            15,
            f"finding on {step.name}",
            since,
        )


def test_danger_is_told_while_learning(service: Service, cell: Cell) -> None:
    script = (
        "import os; f = os.memfd_create('x'); os.write(f, open('/bin/true', 'rb').read()); os.execve(f, ['hid'], {})"
    )

    process = cell.popen(PYTHON, "-c", script)

    def wanted(line: Line) -> bool:
        return told(line) and cell.id[:12] in line.object["workload"] and line.object["kind"] == "danger"

    alert = service.out.wait(wanted, 15, "danger").object
    assert "learning" == alert["mode"] and not alert["would_alert"], alert
    assert ["hid"] == alert["argv"]
    assert 0 == process.wait(10)


HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07",
    "two\nlines\r",
    "<!channel> <https://evil.example|click> ```",
    "\u202egnp.exe\u2066",
    b"\xff\xfe\xc3(",
)


def test_hostile_arguments_cannot_write_to_the_terminal_or_the_log(service: Service, shop: Shop) -> None:
    mark = os.urandom(4).hex()
    since, since_err = len(service.out.all), len(service.err.all)

    shop.run("/bin/sh", "-c", "true", mark, *HOSTILE)

    alert = service.out.wait(
        lambda line: "severity" in line.object and mark in (line.object["argv"] or ()), 15, "alert", since
    ).object
    assert [*HOSTILE[:4], "\\xff\\xfe\\xc3("] == alert["argv"][-5:]
    service.err.wait(lambda line: "evil.example" in line.text, 15, "alert on the terminal", since_err)
    name = shop.until(service, lambda row: True)["workload"]
    listed = cli("alerts", data=service.data).stdout + cli("workloads", "show", name, data=service.data).stdout
    for text in (*(line.text for line in service.err.all), *(line.text for line in service.out.all), listed):
        bad = [hex(ord(c)) for c in text if not clean(c)]
        assert not bad, (bad, text[:2000])
    assert any(mark in " ".join(one["argv"] or ()) for one in objects(cli("alerts", "--json", data=service.data)))


def clean(character: str) -> bool:
    number = ord(character)
    control = (number < 32 and character not in "\n\t") or 0x7F <= number < 0xA0
    return not control and character not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"


def test_what_was_told_can_be_asked_again(service: Service, shop: Shop) -> None:
    """`wonted alerts --json` is what the JSON lines were."""
    lines = {line.object["id"]: line.object for line in service.out.all if told(line)}

    listed = {alert["id"]: alert for alert in objects(cli("alerts", "--json", "--since", "1h", data=service.data))}

    assert lines.keys() <= listed.keys()
    assert all(ALERT.keys() <= alert.keys() for alert in listed.values())


def only(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(row for row in rows if row["workload"] == name)


def test_the_list_of_workloads_has_its_columns(service: Service, shop: Shop, tmp_path: Path) -> None:
    name = shop.until(service, lambda row: True)["workload"]

    row = only(objects(cli("workloads", "ls", "--json", data=service.data)), name)

    columns = {"workload", "mode", "since", "progress", "eta_s", "containers", "events", "alerts", "lost"}
    assert columns <= row.keys()
    assert 1 == row["containers"] and row["events"] > 100 and 0 == (row["lost"] if isinstance(row["lost"], int) else 0)
