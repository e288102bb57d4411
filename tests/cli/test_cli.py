"""Options, exit codes, and where words and data go."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.client import Client
from pipeline.sinks.outbox import Outbox
from probes.batch import encode
from probes.event import Batch, Event, Process
from tests.cli.conftest import ROOT, wonted


def test_the_version_is_quick_to_say() -> None:
    started = time.monotonic()
    result = wonted("version")

    assert re.fullmatch(r"wonted \d+\.\d+\.\d+\n", result.out)
    assert time.monotonic() - started < 2


def test_the_command_line_imports_no_heavy_module_to_start() -> None:
    """What makes `wonted version` slow would come in by an import at the top of some module."""
    heavy = ("faust", "river", "numpy", "pydantic", "rich.table")
    code = f"import sys, pipeline.cli; print([m for m in {heavy} if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("frobnicate",), 2, "No such command"),
        (("alerts", "--nonsense"), 2, "No such option"),
        (("alerts", "--since", "soon"), 2, "expected a duration"),
        (("events", "--kind", "exce"), 2, "did you mean exec?"),
        (("baseline", "show"), 2, "Missing argument"),
        (("version", "--data"), 2, "'--data' requires an argument"),
        (("demo", "--learn", "-5"), 2, "greater than or equal to 5"),
        (("no\x1b[31msuch",), 2, "No such command 'no\\x1b[31msuch'"),
        (("-o", "learn.mni=3", "run"), 3, "-o: learn.mni: no such setting; did you mean learn.min?"),
        (("run", "-o", "learn.mni=3"), 3, "did you mean learn.min?"),
        (("config", "check", "/nonexistent.yaml"), 3, "/nonexistent.yaml: No such file or directory"),
        (("-c", "/nonexistent.yaml", "status", "--data", "/nonexistent"), 5, "wonted run"),
    ],
)
def test_an_error_has_its_exit_code_and_its_words_on_stderr(args: tuple[str, ...], code: int, words: str) -> None:
    result = wonted(*args)

    assert (result.code, result.out) == (code, "")
    assert words in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "args",
    [
        ("status",),
        ("workloads", "ls"),
        ("workloads", "show", "x"),
        ("workloads", "learn", "x"),
        ("workloads", "enforce", "x"),
        ("alerts",),
        ("alerts", "-f"),
        ("events", "-f"),
        ("baseline", "show", "x"),
        ("baseline", "accept", "al_1"),
        ("baseline", "forget", "x", "y"),
        ("baseline", "confirm", "al_1"),
        ("baseline", "snooze", "x", "--for", "2h"),
        ("baseline", "undo", "de_1"),
        ("baseline", "decisions"),
        ("baseline", "export"),
        ("baseline", "diff", "x", "y"),
        ("stop",),
    ],
)
def test_without_a_service_a_command_says_how_to_start_one(args: tuple[str, ...], tmp_path: Path) -> None:
    result = wonted(*args, "--data", tmp_path)

    assert (result.code, result.out) == (5, "")
    assert "start it with `wonted run`" in result.err


def test_global_options_may_stand_before_and_after_the_command(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("partitions: 3\n")
    shown = [
        wonted("-c", file, "-o", "learn.min=5s", "config", "show", "--json").objects,
        wonted("config", "show", "--json", "-o", "learn.min=5s", "-c", file).objects,
        wonted("config", f"--config={file}", "show", "-olearn.min=5s", "--json").objects,
    ]

    assert shown[0] == shown[1] == shown[2]
    values = {row["setting"]: (row["value"], row["source"]) for row in shown[0]}
    assert values["partitions"] == (3, f"{file}:1:13")
    assert values["learn.min"] == (5, "-o")
    assert values["learn.max"] == (None, "default")


def test_secrets_are_masked(tmp_path: Path) -> None:
    options = ("-o", "sinks.slack.token=xoxb-secret", "-o", "sinks.slack.channel=C1")

    results = [wonted("config", "show", *flag, *options) for flag in ((), ("--json",))]

    assert all("xoxb-secret" not in result.out + result.err for result in results)
    assert all("hidden" in result.out for result in results)


def test_a_secret_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("https://hooks.example/x")
    token.chmod(0o644)

    result = wonted("config", "check", "-o", f"sinks.slack.webhook_file={token}")

    assert result.code == 0
    assert f"chmod 600 {token}" in result.err


def test_a_danger_rule_that_does_not_exist_is_warned_about() -> None:
    result = wonted("config", "check", "-o", "danger.allow=[ptrace, exec_*]")

    assert result.code == 0
    assert "danger.allow[0].rule: ptrace is no rule; did you mean ptrace_stranger?" in result.err
    assert "danger.allow[1]" not in result.err


def test_modules_of_the_folder_it_is_called_in_are_not_imported(tmp_path: Path) -> None:
    """Root may call it in a folder that somebody else fills."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "__init__.py").write_text("raise SystemExit('hijacked')")
    program = ROOT / ".venv" / "bin" / "wonted"
    if not program.exists():
        pytest.skip("not set up by `make run` or `make test`")

    done = subprocess.run([program, "version"], cwd=tmp_path, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_alerts_of_a_stopped_service_come_from_its_outbox(tmp_path: Path) -> None:
    Outbox(tmp_path / "outbox.db", [])

    result = wonted("alerts", "--json", "--data", tmp_path)

    assert (result.code, result.out) == (0, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_somebody_who_forgot_sudo_is_told(tmp_path: Path) -> None:
    """The service of root has its data elsewhere, where others cannot look."""
    code = "import os, sys; os.setuid(65534); from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "status"]

    done = subprocess.run(command, cwd=ROOT, env={"HOME": "/nonexistent"}, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (5, "")
    assert "asked with sudo" in done.stderr


def test_without_a_command_there_is_help_and_no_empty_error() -> None:
    result = wonted()

    assert (result.code, result.err) == (2, "See wonted --help, or --help after a command.\n")
    assert "Usage" in result.out


def test_a_running_service_answers(service: Path) -> None:
    batch = Batch(host="h", boot="b", run="r", seq=0, partition=0, time=time.time_ns(), events=[event("shop/web:app")])
    with Client(service) as client:
        client.call("batch", partition=0, payload=encode(batch))
    rows = wait_for(lambda: wonted("workloads", "ls", "--json", "--data", service).objects)

    assert [row["workload"] for row in rows] == ["shop/web:app"]
    columns = {"workload", "mode", "since", "progress", "eta_s", "containers", "events", "alerts", "lost"}
    assert columns <= set(rows[0])
    for args in (("status",), ("workloads", "show", "shop"), ("baseline", "show", "shop*")):
        assert len(wonted(*args, "--json", "--data", service).objects) == 1
        assert wonted(*args, "--data", service).out
    assert wonted("workloads", "ls", "--data", service).out.startswith("workload")
    assert wonted("alerts", "--json", "--data", service).code == 0


def test_a_decision_is_confirmed_and_an_unknown_name_lists_what_there_is(service: Path) -> None:
    refused = wonted("workloads", "enforce", "nothing-like-it", "--data", service)

    assert (refused.code, refused.out) == (1, "")
    assert "no workload nothing-like-it; known: " in refused.err


def test_a_second_service_on_the_same_data_is_refused(service: Path) -> None:
    result = wonted("run", "--no-probe", "--data", service)

    assert result.code == 1
    assert f"uses {service}; stop it or give --data" in result.err


def test_a_glance_at_the_events_ends_by_itself(service: Path) -> None:
    result = wonted("events", "--json", "--data", service)

    assert (result.code, result.out) == (0, "")
    assert result.err.startswith("no event in 3 s")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:

    command = f"{sys.executable} -m pipeline config show | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def event(workload: str) -> Event:
    process = Process(pid=1, vpid=1, ppid=0, comm="app", exe="/bin/app", argv=("app",))
    return Event(time.time_ns(), workload, "exec", "exec", process, 1, 0, object="/bin/app")


def wait_for(ask: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Ask until there is an answer."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := ask():
            return found
    return []
