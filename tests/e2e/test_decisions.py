"""What people decide: taken by the running service, and kept over a restart."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.demo.service import Line, Service
from tests.benchmarks.common import Cell
from tests.e2e.conftest import Start, cli, objects

QUICK = {"learn.max": "3s", "snapshot": "1s"}


def test_accept_and_forget_are_taken_at_once_and_survive_a_restart(start: Start, tmp_path: Path, cell: Cell) -> None:
    """Accepted: told no more. Forgotten: told again."""
    service = start(QUICK, data=tmp_path)
    cell.popen("/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do /bin/true; sleep 0.1; done").wait(20)
    name = cell.until(service, lambda row: row["mode"] != "learning")["workload"]

    def run(program: str, word: str) -> None:
        assert 0 == cell.popen("/bin/sh", "-c", f"{program} {word} >/dev/null; true").wait(10)

    def about(word: str) -> Callable[[Line], bool]:
        return lambda line: word in (line.object.get("argv") or ()) and not line.object.get("finding")

    run("/bin/ls", "/first")
    alert = service.out.wait(about("/first"), 15, "alert on ls").object

    accepted = cli("baseline", "accept", alert["id"], data=tmp_path)
    assert 0 == accepted.returncode, accepted.stderr

    service.stop()
    again = start(QUICK, data=tmp_path)
    run("/bin/ls", "/second")
    run("/bin/cat", "/third")
    again.out.wait(about("/third"), 15, "alert on cat, which nobody accepted")
    assert again.out.find(about("/second")) is None

    (shown,) = objects(cli("baseline", "show", name, "--json", data=tmp_path))
    assert "ls" in str(shown)
    for value in {value for value in words(shown["known"]) if "/bin/ls" in value and value.startswith("exec ")}:
        forgotten = cli("baseline", "forget", name, value, data=tmp_path)
        assert 0 == forgotten.returncode, forgotten.stderr
    run("/bin/ls", "/fourth")
    again.out.wait(lambda line: "/fourth" in (line.object.get("argv") or ()), 15, "finding on ls, which was forgotten")


def test_undo_confirm_and_snooze_hold_over_a_restart(start: Start, tmp_path: Path, cell: Cell) -> None:
    """Undone: told again. Confirmed: told also while the workload is snoozed; what else is new is marked, not told."""
    service = start(QUICK, data=tmp_path)
    cell.popen("/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do /bin/true; sleep 0.1; done").wait(20)
    name = cell.until(service, lambda row: row["mode"] != "learning")["workload"]

    def run(program: str, word: str) -> None:
        assert 0 == cell.popen("/bin/sh", "-c", f"{program} {word} >/dev/null 2>&1; true").wait(10)

    def about(program: str, words: str, line: Line) -> bool:
        alert = line.object
        return str(alert.get("exe")).endswith(f"/{program}") and not alert.get("finding") and words in alert["why"]

    def told(service: Service, ls: str = "", cat: str = "") -> dict[str, dict[str, Any]]:
        """The alert of each of the two programs that says these words."""
        run("/bin/ls", "/first")
        run("/bin/cat", "/first")
        return {
            program: service.out.wait(partial(about, program, words), 20, f"alert on {program}: {words}").object
            for program, words in (("ls", ls), ("cat", cat))
        }

    first = told(service)
    for args in (
        ("accept", first["ls"]["id"], "--scope", "place"),
        ("undo", "de_"),
        ("confirm", first["cat"]["id"]),
        ("snooze", name, "--for", "1h"),
    ):
        done = cli("baseline", *args, data=tmp_path)
        assert 0 == done.returncode, done.stderr

    service.stop()
    again = told(start(QUICK, data=tmp_path), "Snoozed by", "confirmed as an incident")

    assert (True, False) == (again["ls"]["would_alert"], again["cat"]["would_alert"])
    actions = [row["action"] for row in objects(cli("baseline", "decisions", name, "--json", data=tmp_path))]
    assert ["confirm", "snooze"] == sorted(actions)


def test_modes_can_be_set_by_hand_and_survive_a_restart(start: Start, tmp_path: Path, cell: Cell) -> None:
    service = start({"snapshot": "1s"}, data=tmp_path)
    cell.popen("/bin/sh", "-c", "/bin/true; /bin/true").wait(20)
    name = cell.until(service, lambda row: row["mode"] == "learning")["workload"]

    done = cli("workloads", "enforce", name, data=tmp_path)

    assert 0 == done.returncode, done.stderr
    assert "learning" != cell.row(service)["mode"]  # type: ignore[index]
    service.stop()
    again = start({"snapshot": "1s"}, data=tmp_path)
    assert "learning" != cell.row(again)["mode"]  # type: ignore[index]
    assert 0 == cli("workloads", "learn", name[:8], data=tmp_path).returncode
    assert "learning" == cell.row(again)["mode"]  # type: ignore[index]


def words(value: object) -> Iterator[str]:
    """Every text in a nested answer."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from words(key)
            yield from words(item)
    elif isinstance(value, list):
        for item in value:
            yield from words(item)
