"""record and replay: what the probes saw, kept, and put through the models once more."""

import time
from pathlib import Path

import pytest

from pipeline.client import Client
from probes.batch import encode
from probes.event import Batch, Container, Event, Process
from probes.replay import Recorder, read
from tests.cli.conftest import wonted

SECOND = 1_000_000_000
START = 1_795_000_000 * SECOND


INIT = Process(pid=99, vpid=1, ppid=1, comm="init", exe="/sbin/init", argv=("/sbin/init",))


def ran(second: int, program: str) -> Event:
    process = Process(pid=100 + second, vpid=2, ppid=99, comm="x", exe=program, argv=(program,), parent=INIT)
    time_ = START + second * SECOND
    return Event(time_, "shop/web:app", "exec", "exec", process, 100, 0, object=program, container=Container("a" * 64))


def batch(seq: int, *programs: str) -> Batch:
    time_ = START + seq * SECOND
    return Batch("h", "boot", "run", seq, 0, time_, [ran(seq, program) for program in programs])


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """An hour of one program, then another that was never run."""
    file = tmp_path / "hour.rec"
    with Recorder(file) as recorder:
        for seq in range(3600):
            recorder.write(encode(batch(seq, "/usr/bin/app")))
        recorder.write(encode(batch(3601, "/tmp/.x/miner")))
    return file


def test_a_replay_tells_what_the_recording_would_have_given(recording: Path) -> None:
    result = wonted("replay", recording, "--set", "learn.max=30m", "--json")

    assert result.code == 0
    assert [alert["object"] for alert in result.objects] == ["/tmp/.x/miner"]
    assert "3601 batches, 3601 events, 1 workloads" in result.err


def test_a_replay_gives_the_same_each_time(recording: Path) -> None:
    args = ("replay", recording, "--set", "learn.max=30m", "--json")

    assert wonted(*args).out == wonted(*args).out


def test_a_replay_compares_a_change_with_what_is_in_force(recording: Path) -> None:
    result = wonted("replay", recording, "-o", "learn.max=30m", "--set", "models.kinds.exec.enabled=false")

    assert "1 alerts -> 0" in result.err


def test_scripts_can_ask_for_an_exit_code(recording: Path) -> None:
    assert wonted("replay", recording, "--set", "learn.max=30m", "--exit-code").code == 10
    assert wonted("replay", recording, "--set", "models.kinds.exec.enabled=false", "--exit-code").code == 0


@pytest.mark.parametrize(
    "content", [b"", b"not a recording", b"wonted recording 1\n\x10\0\0\0\0\0\0\0damaged bytes!!!"]
)
def test_what_is_no_recording_is_an_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.rec"
    file.write_bytes(content)

    result = wonted("replay", file)

    assert (result.code, result.out) == (1, "")
    assert str(file) in result.err
    assert "Traceback" not in result.err


def test_a_missing_recording_and_a_bad_setting_are_errors(tmp_path: Path) -> None:
    assert wonted("replay", tmp_path / "none.rec").code == 1
    assert wonted("replay", tmp_path / "none.rec", "--set", "learn.mni=3").code == 3


def test_without_a_log_there_is_nothing_to_record(tmp_path: Path) -> None:
    result = wonted("record", tmp_path / "x.rec", "--data", tmp_path / "nothing")

    assert result.code == 5
    assert "start the service with `wonted run`" in result.err


def test_a_recording_holds_the_batches_that_were_sent(service: Path, tmp_path: Path) -> None:
    file = tmp_path / "now.rec"
    now = time.time_ns()
    sent = [encode(Batch("h", "boot", "recorded", seq, 3, now + seq)) for seq in range(20)]
    with Client(service) as client:
        for payload in sent:
            client.call("batch", partition=3, payload=payload)

    result = wonted("record", file, "--since", "1h", "--data", service)

    assert result.code == 0
    assert [payload for payload in read(file) if payload in sent] == sent


def test_something_else_is_never_overwritten_by_a_recording(service: Path, tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear Ana")

    result = wonted("record", file, "--since", "1s", "--data", service)

    assert result.code == 1
    assert file.read_text() == "Dear Ana"
