"""What people decide, by the command line; and decisions as a file."""

import os
import pty
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.client import Client
from pipeline.decisions import from_yaml, to_yaml
from probes.batch import encode
from probes.event import Batch, Container, Event, Process
from tests.cli.conftest import ROOT, Result, wonted
from tests.cli.test_cli import wait_for

HOSTILE = "/bin/sh\n\x1b[31m; echo $(id) `id` \\xff \u202e \U0001f600 - #x: 'y'"
_seq = count(1)
_pids = count(100)


class Shop:
    """A workload of a running service."""

    def __init__(self, data: Path, name: str) -> None:
        self.data, self.name = data, name
        self.container = Container(f"{zlib.crc32(name.encode()):064x}", name, "shop:1")

    def run(self, exe: str, *args: str) -> None:
        """A program is run by its server, and the worker has judged it."""
        at = time.time_ns()
        pid = next(_pids)
        server = Process(pid=1, vpid=1, ppid=0, comm="app", exe="/bin/app", argv=("app",))
        process = Process(pid, pid, 1, exe[-15:], exe, (exe, *args), parent=server)
        event = Event(at, self.name, "exec", "exec", process, pid, 0, object=exe, container=self.container)
        with Client(self.data) as client:
            before = self.seen(client)
            client.call("batch", partition=0, payload=encode(Batch("h", "b", "r2", next(_seq), 0, at, events=[event])))
            deadline = time.monotonic() + 20
            while self.seen(client) == before:
                assert time.monotonic() < deadline, "the event was not judged"

    def seen(self, client: Client) -> int:
        rows = {row["workload"]: row for row in client.call("workloads")}
        return int(rows[self.name]["events"]) if self.name in rows else -1

    def alert(self, word: str) -> dict[str, Any]:
        """The alert that names the word."""
        rows = wait_for(lambda: [a for a in self.alerts() if word in a["what"] + a["command"]])
        assert rows, f"no alert names {word}"
        return rows[0]

    def alerts(self) -> list[dict[str, Any]]:
        return [a for a in self("alerts", "--json").objects if a["workload"] == self.name]

    def __call__(self, *args: str | Path) -> Result:
        result = wonted(*args, "--data", self.data)
        assert result.code == 0, result.err
        return result

    def fails(self, code: int, *args: str | Path) -> str:
        result = wonted(*args, "--data", self.data)
        assert (result.code, result.out) == (code, "")
        assert "Traceback" not in result.err
        return result.err

    def decided(self, *more: str) -> list[dict[str, Any]]:
        return self("baseline", "decisions", self.name, "--json", *more).objects


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A worker of its own: one partition, so that every batch is for it."""
    data = tmp_path_factory.mktemp("decisions")
    command = [sys.executable, "-m", "pipeline", "--data", str(data), "-o", "partitions=1", "run", "--no-probe"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("wonted: ready"):
            break
    else:
        pytest.fail("the service did not start")
    yield data
    with Client(data) as client:
        client.call("stop")
    assert process.wait(30) == 0


@pytest.fixture
def shop(data: Path, request: pytest.FixtureRequest) -> Shop:
    made = Shop(data, f"shop/{request.node.name[:40]}")
    for _ in range(3):
        made.run("/bin/date")
    made("workloads", "enforce", made.name)
    return made


def test_an_alert_is_answered_with_a_scope_an_end_an_author_and_a_reason(shop: Shop) -> None:
    shop.run("/usr/bin/wget", "-q", "x")
    alert = shop.alert("wget")

    said = shop(
        *("baseline", "accept", alert["id"], "--scope", "place", "--for", "7d", "--author", "ana", "--reason", "backup")
    )

    assert "silent from now on until" in said.err
    assert "/usr/bin/wget with any arguments, started by /bin/app" in said.err
    (row,) = shop.decided()
    assert f"undo: wonted baseline undo {row['id']}" in said.err
    assert ("accept", "ana", "backup", "place") == tuple(row[k] for k in ("action", "author", "reason", "scope"))
    assert row["in_force"] and row["until"] > row["time"]
    shop.run("/usr/bin/wget", "-O", "y")
    assert 1 == len(shop.alerts())
    assert 1 == shop.decided()[0]["silenced"]
    (summary,) = shop("workloads", "show", shop.name, "--json").objects
    assert 1 == summary["false_alerts"]


def test_undo_by_the_beginning_of_an_id_tells_again(shop: Shop) -> None:
    shop.run("/usr/bin/wget", "-q", "x")
    shop("baseline", "accept", shop.alert("wget")["id"])
    (row,) = shop.decided()

    shop("baseline", "undo", row["id"][:14])

    assert [] == shop.decided()
    ended = [(r["action"], r["in_force"]) for r in shop.decided("--all")]
    assert [("enforce", False), ("accept", False), ("undo", False)] == ended
    assert "no decision de_nope is in force" in shop.fails(1, "baseline", "undo", "de_nope")


def test_a_confirmed_incident_is_not_accepted(shop: Shop) -> None:
    shop.run("/usr/bin/wget", "-q", "x")
    alert = shop.alert("wget")["id"]

    assert "never learned" in shop("baseline", "confirm", alert, "--reason", "it was real").err

    assert "confirmed as an incident" in shop.fails(1, "baseline", "accept", alert)
    (summary,) = shop("workloads", "show", shop.name, "--json").objects
    assert (0, 1) == (summary["false_alerts"], summary["confirmed"])


def test_what_is_snoozed_or_locked_is_said_and_nothing_is_lost(shop: Shop) -> None:
    shop("baseline", "snooze", shop.name, "--for", "2h")
    shop("baseline", "lock", shop.name, "--kind", "exec")

    shop.run("/usr/bin/nc", "-l")

    alert = shop.alert("/usr/bin/nc")
    assert alert["would_alert"] and "Snoozed by" in alert["why"]
    status = shop("status").out
    assert f"{shop.name}: snoozed until 20" in status and "locked: exec" in status
    assert "snoozed" in shop("workloads", "show", shop.name).out
    shop("baseline", "unlock", shop.name)
    assert ["snooze"] == [row["action"] for row in shop.decided()]
    assert "expected a time such as" in shop.fails(2, "baseline", "snooze", shop.name, "--for", "0s")


def test_a_file_of_decisions_goes_out_and_comes_back_the_same(shop: Shop, tmp_path: Path) -> None:
    """export -> undo all -> import -> export: the same bytes; imported twice, nothing changes; hostile text and all."""
    shop.run(HOSTILE, "-x")
    shop.run("/usr/bin/wget", "-q", "x")
    hostile = shop.alert("echo")["id"]
    shop("baseline", "confirm", hostile, "--reason", HOSTILE, "--author", "a\x1b]0;b\x07")
    shop("baseline", "accept", shop.alert("wget")["id"], "--scope", "anyone", "--for", "30d")
    shop("baseline", "accept", shop.name, "--pattern", "exec /bin/app -> /usr/bin/curl*")
    shop("baseline", "lock", shop.name, "--kind", "dns")
    file = tmp_path / "decisions.yaml"
    first = shop("baseline", "export", shop.name).out
    file.write_text(first)
    assert first.isascii() and "\x1b" not in first and "\x07" not in first
    assert "4 in force already" in shop("baseline", "import", file).err
    for row in shop.decided():
        shop("baseline", "undo", row["id"])

    tried = shop("baseline", "import", file, "--dry-run")
    assert "4 would be taken in, 0 in force already" in tried.err
    assert [] == shop.decided()
    taken = shop("baseline", "import", file)
    again = shop("baseline", "import", file)

    assert "4 taken in" in taken.err and "0 taken in, 4 in force already" in again.err
    second = shop("baseline", "export", shop.name).out
    assert without_ids(first) == without_ids(second)
    assert ["accept", "accept", "confirm", "lock"] == sorted(row["action"] for row in shop.decided())
    (confirmed,) = [row for row in shop.decided() if row["action"] == "confirm"]
    assert (HOSTILE, "a\x1b]0;b\x07") == (confirmed["reason"], confirmed["author"])


def without_ids(text: str) -> list[dict[str, Any]]:
    """What was undone comes back under a new id: the old one is history here."""
    return [{k: v for k, v in row.items() if k != "id"} for row in yaml.safe_load(text)["decisions"]]


def test_a_terminal_shows_no_escape_of_a_decision(shop: Shop) -> None:
    shop.run(HOSTILE, "-x")
    shop("baseline", "accept", shop.alert("echo")["id"], "--reason", HOSTILE)
    for args in (("decisions", shop.name), ("show", shop.name), ("export", shop.name)):
        command = [sys.executable, "-m", "pipeline", "--data", str(shop.data), "baseline", *args]
        parent, child = pty.openpty()
        done = subprocess.Popen(command, cwd=ROOT, stdout=child, stderr=child)
        os.close(child)
        shown = b""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:
                break
            shown += part
        os.close(parent)
        assert 0 == done.wait(30)
        assert b"\x1b[31m; echo" not in shown and "\u202e".encode() not in shown
        assert b"echo $(id)" in shown.replace(b"\r\n", b"")


def test_where_one_decision_is_refused_none_is_taken(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    good = {"workload": shop.name, "action": "accept", "value": "exec /bin/app -> /bin/cat"}
    rows = [good, good | {"workload": "nowhere"}, good | {"value": "exec *", "scope": "pattern"}]
    file.write_text(yaml.safe_dump({"version": 1, "decisions": rows}, sort_keys=False))

    said = wonted("baseline", "import", file, "--data", shop.data)

    assert 1 == said.code
    assert f"{file}:9:3: pattern 'exec *' is all of exec; say at least the program" in said.err
    assert "nothing was taken in" in said.err
    assert [] == shop.decided()
    assert "nowhere" not in shop("baseline", "decisions").out


def test_one_answer_for_many_workloads_goes_out_and_comes_back_in_one_line(shop: Shop, tmp_path: Path) -> None:
    """By an alert's id; the export has it once, and what was not seen yet is said to wait."""
    other = Shop(shop.data, f"{shop.name}-b")
    other.run("/bin/date")
    shop.run("/usr/bin/wget", "-q", "x")
    said = shop("baseline", "accept", shop.alert("wget")["id"], "--workloads", f"{shop.name}*", "--reason", "backup")
    file = tmp_path / "d.yaml"
    file.write_text(shop("baseline", "export").out)
    rows = [row for row in yaml.safe_load(file.read_text())["decisions"] if row["workload"].startswith(shop.name)]
    listed = shop("baseline", "decisions").out
    shop("baseline", "undo", rows[0]["id"])
    undone = (shop.decided(), other.decided())
    rows = [*rows, {"workload": f"{shop.name}-c", "action": "lock"}]
    file.write_text(yaml.safe_dump({"version": 1, "decisions": rows}, sort_keys=False))
    taken = shop("baseline", "import", file)

    assert "2 workloads here" in said.err and "and later ones when they appear" in said.err
    assert [(f"{shop.name}*", "workloads")] == [(row["workload"], row["many"]) for row in rows[:1]]
    assert f"in all workloads that match {shop.name}*" in " ".join(listed.split())
    assert ([], []) == undone
    assert "1 taken in, 0 in force already, 0 over, 1 kept for workloads that were not seen yet" in taken.err
    assert ["accept"] == [row["action"] for row in other.decided()]


def test_two_baselines_are_compared_and_one_with_its_own_latest_image(shop: Shop, data: Path) -> None:
    other = Shop(data, f"{shop.name}-b")
    other.run("/bin/date")
    other.run("/bin/sed", "-n")

    rows = shop("baseline", "diff", shop.name, other.name, "--json").objects

    assert [("exec", other.name, "exec /bin/app -> /bin/sed -n", 1)] == [
        (row["kind"], row["only_in"], row["value"], row["count"]) for row in rows
    ]
    assert "/bin/sed -n" in shop("baseline", "diff", shop.name, other.name).out
    assert "never changed its image here" in shop.fails(1, "baseline", "diff", other.name)
    shop.container = Container("f" * 64, shop.name, "shop:2", "sha256:two")
    shop.run("/usr/bin/wget", "-q", "x")
    (added,) = shop("baseline", "diff", shop.name, "--json").objects
    assert ("told", "shop:2") == (added["state"], added["image"])
    assert "after image shop:2 was first seen" in shop.alert("wget")["why"]
    assert 0 == shop.alert("wget")["evidence"]["release"]["after_s"]


BAD = [
    ("", 'f:1:1: expected "version: 1" and a list "decisions:", as `wonted baseline export` writes it; got nothing'),
    ("version: 2\ndecisions: []\n", "f:1:10: version: expected 1, got 2; export again"),
    ("version: 1\ndecisions:\n- 7\n", "f:3:3: expected a decision (workload, action, ...), got 7"),
    ("version: 1\ndecisions: []\nmore: 1\n", "f:3:1: more: no such field; expected version and decisions"),
    (
        "version: 1\ndecisions:\n- workload: w\n  action: acept\n  value: exec a -> b\n",
        "f:4:11: action: got 'acept'; expected one of accept, confirm, forget, lock, snooze",
    ),
    (
        "version: 1\ndecisions:\n- workload: w\n  action: accept\n  value: 7\n",
        'f:5:10: value: expected a text, got 7; write it in quotes: "7"',
    ),
    (
        "version: 1\ndecisions:\n- workload: w\n  action: accept\n  value: x y\n  untl: z\n",
        "f:6:9: untl: no such field; did you mean until?",
    ),
    (
        "version: 1\ndecisions:\n- workload: w\n  action: accept\n  value: x y\n  until: tomorrow\n",
        "f:6:10: until: expected a time in UTC such as \"2026-11-26T09:00:00Z\", got 'tomorrow'",
    ),
    (
        'version: 1\ndecisions:\n- workload: w\n  action: lock\n  reason: "\\ud800"\n',
        "f:5:11: reason: half a character (U+D800 to U+DFFF); write bytes that are no UTF-8 as \\xNN",
    ),
    ("version: 1\ndecisions:\n- workload: w\n  action: lock\n  id: u/x\n", "f:5:7: id: got 'u/x'; expected letters"),
    ("version: 1\ndecisions:\n- workload: w\n  action: snooze\n", "f:3:3: until: missing; a snooze has an end"),
    ("version: 1\ndecisions:\n- action: lock\n", "f:3:3: workload: missing; expected the name of a workload"),
    ("version: 1\ndecisions:\n  - a: [\n", "f:4:1: not YAML"),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=range(len(BAD)))
def test_each_mistake_in_a_file_has_its_place_and_its_mend(text: str, words: str) -> None:
    problems = [str(problem) for problem in from_yaml(text, "f").problems]

    assert any(problem.startswith(words) for problem in problems), problems


def test_a_file_with_mistakes_is_a_config_error(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    file.write_bytes(b"version: 1\ndecisions:\n- \xff\n")
    bad = wonted("baseline", "import", file, "--data", data)
    assert (3, f"{file}:3: not UTF-8; `wonted baseline export` writes plain ASCII\n") == (bad.code, bad.err)

    assert 1 == wonted("baseline", "import", tmp_path / "none", "--data", data).code


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["yes", "null", "1", "2026-11-26", "~", "- x", "a: b", "!!x", "\x85", "\\xff"]
)


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=6))
@hypothesis_settings(max_examples=200, deadline=None)
def test_any_text_survives_the_file(texts: list[tuple[str, str, str]]) -> None:
    """A law: what was written is read again, whatever it is, in one order, in plain ASCII."""
    rows = [
        {"workload": "w" + w, "action": "accept", "value": "x" + v, "scope": "value", "author": a, "id": f"de_{i}",
         "time": "2026-11-26T09:00:00.000001Z", "until": None, "tokens": None, "kind": None, "reason": None}
        for i, (w, v, a) in enumerate(texts)
    ]  # fmt: skip

    text = to_yaml(rows)
    read = from_yaml(text, "f")

    assert text.isascii() and all(c == "\n" or c.isprintable() for c in text)
    assert [] == read.problems
    key = lambda row: row["id"]  # noqa: E731
    assert [(r["workload"], r["value"], r["author"]) for r in sorted(rows, key=key)] == [
        (r["workload"], r["value"], r["author"]) for r in sorted(read.decisions, key=key)
    ]
    assert text == to_yaml(reversed(rows))
    assert {1_795_683_600_000_001_000} >= {row["time"] for row in read.decisions}
