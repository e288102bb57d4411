"""What was acknowledged survives kill -9, in the log and in a Faust app on it."""

import random
from pathlib import Path

from pipeline.transport.log import Entry, Log
from tests.transport.harness import CountingApp, Process

WRITER = str(Path(__file__).with_name("writer.py"))


def listening(pid: int) -> list[str]:
    """Listening TCP sockets of a process, from /proc."""
    inodes = {
        fd.readlink().name[8:-1]
        for fd in Path(f"/proc/{pid}/fd").iterdir()
        if fd.readlink().name.startswith("socket:[")
    }
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.append(fields[1])
    return found


def test_every_record_that_was_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    """A writer is killed at ten random moments; each record that it had told of is there, whole, at its offset."""
    directory = tmp_path / "log"
    told: dict[tuple[int, int], tuple[int, int]] = {}
    moments = random.Random(3)
    for seed in range(10):
        writer = Process(WRITER, str(directory), str(seed), errors=tmp_path / "errors")
        writer.wait_for("wrote", moments.randrange(1, 2000))
        writer.kill()
        for line in writer.lines:
            partition, offset, size, mark = map(int, line.split()[1:])
            assert (partition, offset) not in told
            told[partition, offset] = (size, mark)

    log = Log(directory)
    found = {}
    for number in range(3):
        part, offset = log.partition("t", number), 0
        while offset < part.next:
            records, offset = part.read(offset)
            found |= {(number, r.offset): (len(r.value), r.value[0], len(set(r.value))) for r in records}
    log.close()

    assert len(told) > 1000
    assert {key: (*value, 1) for key, value in told.items()} == {key: found.get(key) for key in told}


def test_a_faust_app_applies_all_that_was_acknowledged_and_nothing_twice(tmp_path: Path) -> None:
    """Agents, group_by, a table with a changelog and a timer on embedded://, killed at random moments under load."""
    moments = random.Random(4)
    acknowledged: set[int] = set()
    for _ in range(5):
        app = CountingApp("embedded://", tmp_path, "count", "send")
        app.wait_for("ready")
        app.wait_for("sent", moments.randrange(1, 3000))
        app.kill()
        acknowledged |= app.acknowledged()

    app = CountingApp("embedded://", tmp_path, "count")
    app.wait_for("ready")
    applied = app.settle(acknowledged)
    code = app.stop()

    assert len(acknowledged) > 500
    assert set() == acknowledged - set(applied)
    assert len(applied) == len(set(applied))
    assert code == 0
    assert "Traceback" not in (tmp_path / "errors").read_text()


def test_a_backlog_is_applied_from_its_first_record_on(tmp_path: Path) -> None:
    """Faust empties the streams' queues when a recovery ends; what was handed over too early would never be applied."""
    log = Log(tmp_path / "log")
    log.create("count.numbers", 4)
    for number in range(2000):
        log.write("count.numbers", number % 4, [Entry(None, b"%d" % number)])
    log.close()

    for _ in range(2):
        app = CountingApp("embedded://", tmp_path, "count")
        app.wait_for("ready")
        app.settle(set(range(2000)))
        applied = app.applied()
        app.stop()

        assert {part: list(range(part, 2000, 4)) for part in range(4)} == applied


def test_a_running_app_listens_on_no_port_and_refuses_a_second_one(tmp_path: Path) -> None:
    app = CountingApp("embedded://", tmp_path, "count")
    app.wait_for("ready")
    second = CountingApp("embedded://", tmp_path, "count")

    assert second.process.wait(60) != 0
    second.kill()
    assert f"is in use by another process (pid {app.process.pid})" in (tmp_path / "errors").read_text()
    assert listening(app.process.pid) == []
    assert app.applied() == {}
    app.stop()


def test_a_stopped_app_has_committed_what_it_did(tmp_path: Path) -> None:
    """After an orderly stop nothing is read again."""
    app = CountingApp("embedded://", tmp_path, "count", "send")
    app.wait_for("sent", 500)
    app.ask("quiet")
    app.settle(app.acknowledged())
    app.stop()

    log = Log(tmp_path / "log")
    behind = [log.partition("count.numbers", n).next - (log.committed("count.numbers", n) or 0) for n in range(4)]
    log.close()
    assert [0, 0, 0, 0] == behind
