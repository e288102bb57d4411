"""What the log lets go of, and what it never does."""

import os
from pathlib import Path

import pytest

from pipeline.transport.log import Entry, Log


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def write(log: Log, clock: Clock, topic: str, count: int, size: int = 100, key: bytes | None = None) -> None:
    """Records whose segments look as if written at the clock's time."""
    for _ in range(count):
        log.write(topic, 0, [Entry(key, bytes(size))])
        path = log.partition(topic, 0).segments[-1].path
        os.utime(path, (clock.now, clock.now))


def offsets(log: Log, topic: str) -> list[int]:
    part, offset, found = log.partition(topic, 0), 0, []
    while offset < part.next:
        records, offset = part.read(offset)
        found += [record.offset for record in records]
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Log:
    log = Log(tmp_path / "log", retention=100, size=20_000, segment=1000, clock=clock)
    log.create("a", 1)
    log.create("b", 1)
    log.create("table", 1, compact=True)
    return log


def test_old_records_go_and_young_ones_stay(log: Log, clock: Clock) -> None:
    write(log, clock, "a", 20)
    clock.now += 90
    write(log, clock, "a", 20)
    clock.now += 20

    log.trim()

    assert offsets(log, "a") == list(range(20, 40))
    assert log.counts["expired_by_age"] >= 2


def test_a_quiet_topic_gets_empty_and_goes_on_where_it_was(log: Log, clock: Clock) -> None:
    """Also the segment that is written to goes out of date; its offsets are not given again."""
    write(log, clock, "a", 5)
    clock.now += 101

    log.trim()

    assert offsets(log, "a") == []
    assert log.partition("a", 0).first == log.partition("a", 0).highwater == 5
    assert log.write("a", 0, [Entry(None, b"")]) == 5


def test_over_the_size_the_oldest_segment_of_all_topics_goes(log: Log, clock: Clock) -> None:
    write(log, clock, "a", 60)
    clock.now += 1
    write(log, clock, "b", 60)
    clock.now += 1
    write(log, clock, "a", 60)

    log.trim()

    assert log.bytes() <= 20_000
    assert 60 > offsets(log, "a")[0] > 0 or offsets(log, "a")[0] == 60
    assert offsets(log, "b")[-1] == 59
    assert offsets(log, "a")[-1] == 119
    assert log.counts["expired_by_size"] > 0


def test_what_nobody_had_read_is_counted_when_it_goes(log: Log, clock: Clock) -> None:
    write(log, clock, "a", 20)
    log.commit({("a", 0): 5})
    clock.now += 101
    log.trim()

    assert log.counts["expired_unread"] == 15


def test_a_compacted_topic_keeps_the_last_of_each_key_however_old_and_large(log: Log, clock: Clock) -> None:
    for number in range(100):
        write(log, clock, "table", 1, size=1000, key=b"%d" % (number % 10))
    clock.now += 10_000
    log.trim()

    for job in log.compactions():
        job.run()
        job.finish()

    part = log.partition("table", 0)
    found = {record.key: record.offset for record in part.read(0, max_bytes=1 << 30)[0]}
    assert {b"%d" % n: 90 + n for n in range(10)} == found
    assert log.bytes() < 25_000
    assert part.highwater == 100


def test_a_tombstone_removes_its_key_after_the_retention(log: Log, clock: Clock) -> None:
    log.write("table", 0, [Entry(b"gone", b"v"), Entry(b"stays", b"v")])
    log.write("table", 0, [Entry(b"gone", None)])

    for wait in (0, 101):
        clock.now += wait
        log.write("table", 0, [Entry(b"filler%d" % wait, bytes(1000))])
        log.write("table", 0, [Entry(b"filler%d" % wait, bytes(1000))])
        for job in log.compactions():
            job.run()
            job.finish()
        keys = [record.key for record in log.partition("table", 0).read(0, max_bytes=1 << 20)[0]]
        assert (b"gone" in keys) == (wait == 0)
        assert b"stays" in keys


def test_a_compaction_cut_short_at_any_step_loses_nothing(log: Log, clock: Clock, tmp_path: Path) -> None:
    """Dead before the new segment has its name, or before the old ones are gone."""
    for number in range(50):
        write(log, clock, "table", 1, size=300, key=b"%d" % (number % 5))
    (job,) = log.compactions()
    job.run()
    old = {path: path.read_bytes() for path in (log.directory / "topics/table/0").glob("*.log")}
    log.close()

    reopened = Log(log.directory, segment=1000, clock=clock)
    before = {r.key: r.offset for r in reopened.partition("table", 0).read(0, max_bytes=1 << 30)[0]}
    (again,) = reopened.compactions()
    again.run()
    again.finish()
    reopened.close()
    for path, content in old.items():
        if not path.exists():
            path.write_bytes(content)
    last = Log(log.directory, segment=1000, clock=clock)
    found = last.partition("table", 0).read(0, max_bytes=1 << 30)[0]

    assert {b"%d" % n: 45 + n for n in range(5)} == before == {r.key: r.offset for r in found}
    assert len(found) < 15
    assert not list((log.directory / "topics/table/0").glob("*.tmp"))
    last.close()


def test_reading_goes_on_across_a_compaction(log: Log, clock: Clock) -> None:
    for number in range(50):
        write(log, clock, "table", 1, size=300, key=b"%d" % (number % 5))
    part = log.partition("table", 0)
    first, offset = part.read(0, max_records=7)

    for job in log.compactions():
        job.run()
        job.finish()
    rest = []
    while offset < part.next:
        records, offset = part.read(offset, max_records=7)
        rest += records

    assert [r.offset for r in rest] == sorted({r.offset for r in rest} - {r.offset for r in first})
    assert {b"%d" % n for n in range(5)} == {r.key for r in rest}
    assert rest[-1].offset == 49
