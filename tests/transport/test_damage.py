"""A Faust app on a log that was damaged while it was down goes on, and says so."""

import shutil
from pathlib import Path

from pipeline.transport.log import Log
from tests.transport.harness import CountingApp


def lag(data: Path) -> list[int]:
    """Per partition: records not committed."""
    log = Log(data / "log")
    parts = [log.partition("count.numbers", number) for number in range(4)]
    found = [part.next - (log.committed("count.numbers", part.number) or 0) for part in parts]
    log.close()
    return found


def test_damage_in_the_middle_costs_its_record_only_and_commits_go_on(tmp_path: Path) -> None:
    """Faust commits only up to a gap in what was acknowledged; an unreadable record must not stop it for ever."""
    app = CountingApp("embedded://", tmp_path, "count", "send")
    app.wait_for("sent", 300)
    app.kill()
    (tmp_path / "log/offsets").unlink(missing_ok=True)
    for segment in (tmp_path / "log/topics/count%2Enumbers").glob("*/*.log"):
        raw = bytearray(segment.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        segment.write_bytes(raw)

    app = CountingApp("embedded://", tmp_path, "count", "send")
    app.wait_for("sent", 300)
    app.ask("quiet")
    app.settle(app.acknowledged())
    app.stop()

    assert [0, 0, 0, 0] == lag(tmp_path)
    assert (tmp_path / "errors").read_text().count("hold no valid record; skipped") == 4


def test_a_torn_end_everywhere_is_cut_and_everything_before_is_applied(tmp_path: Path) -> None:
    """Also the changelogs': recovery must not wait for records that are gone, nor give their offsets again."""
    app = CountingApp("embedded://", tmp_path, "count", "send")
    app.wait_for("sent", 300)
    app.kill()
    acknowledged = app.acknowledged()
    for segment in (tmp_path / "log/topics").glob("*/*/*.log"):
        with segment.open("ab") as file:
            file.write(segment.read_bytes()[40:80][:30])

    for _ in range(2):
        app = CountingApp("embedded://", tmp_path, "count", "send")
        app.wait_for("ready")
        app.wait_for("sent", 100)
        app.kill()
        acknowledged |= app.acknowledged()
    app = CountingApp("embedded://", tmp_path, "count")
    app.wait_for("ready")
    applied = app.settle(acknowledged)
    app.stop()

    assert set() == acknowledged - set(applied)
    assert len(applied) == len(set(applied))
    assert [0, 0, 0, 0] == lag(tmp_path)
    assert "not a whole record, cut off" in (tmp_path / "errors").read_text()


def test_a_directory_that_is_removed_under_a_busy_app_ends_it_with_a_clear_error(tmp_path: Path) -> None:
    """It neither goes on writing to files that nobody can open, nor begins another log in its place."""
    data = tmp_path / "data"
    data.mkdir()
    app = CountingApp(f"embedded://{data / 'log'}", data, "count", "send")
    app.wait_for("ready")
    app.wait_for("sent", 100)

    shutil.rmtree(data / "log")
    code = app.process.wait(30)
    app.kill()

    assert code != 0
    assert "log was removed or replaced while it was in use; start again" in (data / "errors").read_text()
    assert not (data / "log").exists()
