"""The terminal and the JSON-lines file."""

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from config.schema import Settings
from models.finding import Finding
from pipeline.alert import Alert, to_line
from pipeline.sinks import SINKS
from pipeline.sinks.base import Told
from pipeline.sinks.jsonlines import JsonLines
from pipeline.sinks.terminal import Terminal, write

Make = Callable[..., Alert]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def test_each_telling_is_a_line_only_the_owner_can_read(tmp_path: Path, alert: Make) -> None:
    path = tmp_path / "new" / "alerts.jsonl"
    sink = JsonLines(str(path))

    assert [(await sink.tell(alert(n))).state for n in range(3)] == ["sent"] * 3

    assert [alert(n).to_json() for n in range(3)] == lines(path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


async def test_a_rotated_file_is_opened_anew(tmp_path: Path, alert: Make) -> None:
    path = tmp_path / "alerts.jsonl"
    sink = JsonLines(str(path))
    await sink.tell(alert(1))
    path.rename(tmp_path / "alerts.jsonl.1")
    await sink.tell(alert(2))
    path.unlink()
    await sink.tell(alert(3))

    assert [alert(1).id] == [line["id"] for line in lines(tmp_path / "alerts.jsonl.1")]
    assert [alert(3).id] == [line["id"] for line in lines(path)]


async def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path, alert: Make) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(b'{"v": 1, "id": "al_torn')

    await JsonLines(str(path)).tell(alert(1))

    assert [b'{"v": 1, "id": "al_torn', to_line(alert(1).to_json())[:-1]] == path.read_bytes().splitlines()


async def test_after_a_crash_a_line_that_is_there_is_not_written_twice(tmp_path: Path, alert: Make) -> None:
    path = tmp_path / "alerts.jsonl"
    sink = JsonLines(str(path))
    await sink.tell(alert(1))

    again = [await JsonLines(str(path)).tell(alert(n), Told(again=True)) for n in (1, 2)]

    assert ["sent", "sent"] == [delivery.state for delivery in again]
    assert [alert(1).id, alert(2).id] == [line["id"] for line in lines(path)]


async def test_a_full_disk_is_tried_again_and_leaves_no_half_line(alert: Make) -> None:
    delivery = await JsonLines("/dev/full").tell(alert(1))

    assert "retry" == delivery.state and "No space left" in str(delivery.error)


def test_half_a_line_on_a_full_disk_is_taken_back(tmp_path: Path, alert: Make) -> None:
    """A file size limit cuts a write short just as a full disk does."""
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(b"{}\n" * 300)
    code = f"""
import asyncio, resource, signal
from pathlib import Path
from pipeline.alert import Alert
from pipeline.sinks.jsonlines import JsonLines
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
print(asyncio.run(JsonLines({str(path)!r}).tell(Alert.decode({alert(1).encode()!r}))).state)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)

    assert "retry\n" == done.stdout
    assert b"{}\n" * 300 == path.read_bytes()


ROOT = Path(__file__).parents[2]


async def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path: Path, alert: Make) -> None:
    delivery = await JsonLines(str(tmp_path)).tell(alert(1))

    assert "retry" == delivery.state and str(tmp_path) in str(delivery.error)


async def test_findings_are_written_only_where_asked_for(tmp_path: Path, finding: Callable[..., Finding]) -> None:
    path = tmp_path / "alerts.jsonl"
    JsonLines(str(path)).write_finding(finding(), "0/1/0", None, "node-1")
    assert not path.exists()

    JsonLines(str(path), findings=True).write_finding(finding(), "0/1/0", "in_1", "node-1")

    [line] = lines(path)
    assert (True, "in_1", "node-1") == (line["finding"], line["incident"], line["host"])


async def test_findings_wait_for_room_on_the_disk(tmp_path: Path, finding: Callable[..., Finding]) -> None:
    path = tmp_path / "findings"
    path.mkdir()
    sink = JsonLines(str(path), findings=True)
    sink.write_finding(finding(), "0", None)
    path.rmdir()
    sink.write_finding(finding(at=1), "1", None)

    assert 2 == len(lines(path)) and 0 == sink.lost_findings


async def test_a_pipe_gets_no_colours_and_a_terminal_does(alert: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    read, write_end = os.pipe()
    ours, theirs = pty.openpty()

    await Terminal(write_end).tell(alert(1))
    await Terminal(theirs).tell(alert(1))

    assert b"\x1b" not in os.read(read, 65536)
    assert b"\x1b[31m" in os.read(ours, 65536)
    for fd in (read, write_end, ours, theirs):
        os.close(fd)


async def test_the_terminal_shows_who_where_and_the_exact_command(alert: Make) -> None:
    read, write_end = os.pipe()

    await Terminal(write_end).tell(alert(1, argv=("/bin/sh", "-c", "\x1b[2Jx")))

    text = os.read(read, 65536).decode()
    for part in ("checkout - 3f2a9c0d4e5f", "10.244.1.23", "Remote  none", "/bin/sh -c '\\u{1b}[2Jx'", "uid 1000"):
        assert part in text
    os.close(read)
    os.close(write_end)


async def test_what_would_alert_shows_where_too(alert: Make) -> None:
    read, write_end = os.pipe()

    await Terminal(write_end).tell(alert(1, would_alert=True))

    text = os.read(read, 65536).decode()
    for part in ("would alert", "checkout - 3f2a9c0d4e5f", "10.244.1.23", "| none |"):
        assert part in text
    os.close(read)
    os.close(write_end)


async def test_a_reader_who_stopped_reading_does_not_stop_us() -> None:
    read, write_end = os.pipe()
    os.set_blocking(write_end, False)
    while True:
        try:
            os.write(write_end, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(write_end, True)

    stuck = await write(write_end, b"alert", patience=0.1)
    os.close(read)
    gone = await write(write_end, b"alert")

    assert ("retry", "dead") == (stuck.state, gone.state)
    os.close(write_end)


def test_sinks_come_from_the_settings(tmp_path: Path) -> None:
    def names(**sinks: object) -> list[str]:
        made = [sink.from_settings(Settings.model_validate({"sinks": sinks}), tmp_path) for sink in SINKS]
        return [sink.name for sink in made if sink is not None]

    assert ["terminal"] == names()
    assert ["json"] == names(terminal={"enabled": False}, json={"path": "x"})
    assert ["terminal", "slack"] == names(slack={"token": "xoxb-1", "channel": "C1"})
