"""Laws of the segmented log, seen from outside: what went in comes out, whatever happened to the files."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.transport.log import (
    JUMP,
    Entry,
    Log,
    LogError,
    LogLocked,
    LogVersion,
    PartitionsChanged,
)

VALUES = [b"zero", b"one", b"", b"three" * 20, b"four"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "log"


def filled(directory: Path, values: list[bytes] = VALUES) -> Path:
    """A log with one partition, closed; its only segment."""
    log = Log(directory)
    log.create("t", 1)
    for value in values:
        log.write("t", 0, [Entry(b"k", value)])
    log.close()
    (segment,) = (directory / "topics/t/0").iterdir()
    return segment


def values(log: Log, topic: str = "t", partition: int = 0, offset: int = 0) -> list[bytes | None]:
    return [record.value for record in everything(log, topic, partition, offset)]


def everything(log: Log, topic: str = "t", partition: int = 0, offset: int = 0) -> Iterator:
    part = log.partition(topic, partition)
    while offset < part.next:
        records, offset = part.read(offset, max_bytes=100)
        yield from records


def ends(directory: Path) -> list[int]:
    """Where each record of the only segment ends."""
    log = Log(directory)
    segment = log.partition("t", 0).segments[0]
    position, found = 40, [40]
    while position < segment.size:
        position = segment.read(position, max_records=1).position
        found.append(position)
    log.close()
    return found


entries = st.builds(
    Entry,
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=300),
    time=st.integers(0, 2**33).map(float),
    headers=st.none() | st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=9)), min_size=1, max_size=2),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.tuples(st.integers(0, 2), st.lists(entries, max_size=5), st.booleans()), max_size=12),
    segment=st.sampled_from([100, 1000, 100_000]),
)
def test_what_was_written_is_read_back_in_order(tmp_path_factory, batches, segment) -> None:
    """In any order of partitions, over segments and restarts, with keys, tombstones, times and headers as they were."""
    directory = tmp_path_factory.mktemp("log")
    written: dict[int, list[Entry]] = {0: [], 1: [], 2: []}
    log = Log(directory, segment=segment)
    log.create("t", 3)

    for partition, batch, reopen in batches:
        assert len(written[partition]) == log.write("t", partition, batch)
        written[partition] += batch
        if reopen:
            log.close()
            log = Log(directory, segment=segment)

    for partition, expected in written.items():
        found = [Entry(r.key, r.value, r.time, r.headers) for r in everything(log, "t", partition)]
        assert expected == found
    log.close()


def test_reading_from_any_offset_gives_the_rest(directory: Path) -> None:
    log = Log(directory, segment=300)
    log.create("t", 1)
    for number in range(50):
        log.write("t", 0, [Entry(None, str(number).encode())])

    assert all([str(n).encode() for n in range(o, 50)] == values(log, offset=o) for o in [0, 49, 7, 8, 30, 50, 1])
    assert len(log.partition("t", 0).segments) > 5


def test_a_tail_cut_at_any_byte_loses_only_the_record_it_cuts(directory: Path, tmp_path: Path) -> None:
    """Every earlier record is there, nothing of the cut one; the next one is read, at an offset never given before."""
    segment = filled(directory)
    limits = ends(directory)
    for length in range(limits[-1]):
        copy = tmp_path / "copy"
        shutil.copytree(directory, copy)
        with open(copy / segment.relative_to(directory), "r+b") as file:
            file.truncate(length)

        log = Log(copy)
        whole = sum(end <= length for end in limits[1:])
        log.write("t", 0, [Entry(None, b"after")])

        assert [*VALUES[:whole], b"after"] == values(log)
        cut_bytes = length - max([0, *(end for end in limits if end <= length)])
        assert cut_bytes == log.counts["cut_bytes"]
        assert bool(cut_bytes) == bool(log.reports)
        assert log.partition("t", 0).last == whole + (JUMP if cut_bytes else 0)
        log.close()
        shutil.rmtree(copy)


def test_any_changed_byte_loses_only_its_record(directory: Path, tmp_path: Path) -> None:
    """Records before and behind the damaged one are read, and the damage is counted once."""
    segment = filled(directory)
    limits = ends(directory)
    for at in range(40, limits[-1]):
        copy = tmp_path / "copy"
        shutil.copytree(directory, copy)
        with open(copy / segment.relative_to(directory), "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x41]))

        log = Log(copy)
        hit = next(n for n, end in enumerate(limits[1:]) if at < end)

        assert [value for n, value in enumerate(VALUES) if n != hit] == values(log) == values(log)
        last = hit == len(VALUES) - 1
        assert (int(not last), int(last)) == (log.counts["corrupt"], log.counts["cut"])
        log.close()
        shutil.rmtree(copy)


def test_a_damaged_header_costs_nothing(directory: Path) -> None:
    segment = filled(directory)
    with open(segment, "r+b") as file:
        file.write(b"\0" * 36)

    log = Log(directory)

    assert values(log) == VALUES
    log.close()


def test_a_value_that_looks_like_a_record_is_never_taken_for_one(directory: Path) -> None:
    """An attacker who writes our record format into argv gains nothing when the record around it is damaged."""
    other = directory.parent / "other"
    inner = filled(other, [b"forged"]).read_bytes()[40:]
    segment = filled(directory, [b"before", b"x" + inner + b"x", b"after"])
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"x" + inner)] ^= 1
    segment.write_bytes(raw)

    log = Log(directory)

    assert values(log) == [b"before", b"after"]
    log.close()


def test_a_damaged_old_segment_costs_at_most_the_rest_of_it(directory: Path) -> None:
    log = Log(directory, segment=200)
    log.create("t", 1)
    for number in range(20):
        log.write("t", 0, [Entry(None, str(number).encode())])
    log.close()
    second = sorted((directory / "topics/t/0").iterdir())[1]
    raw = second.read_bytes()
    second.write_bytes(raw[:60] + b"\xff" * (len(raw) - 60))

    log = Log(directory, segment=200)
    found = [int(value or b"") for value in values(log)]

    lost = sorted(set(range(20)) - set(found))
    assert 1 <= len(lost) <= 4
    assert lost == list(range(lost[0], lost[-1] + 1))
    assert found == sorted(found)
    assert log.counts["corrupt"] == 1
    log.close()


def test_an_empty_segment_left_by_a_crash_is_used(directory: Path) -> None:
    filled(directory)
    (directory / f"topics/t/0/{5:020d}.log").write_bytes(b"")

    log = Log(directory)
    log.write("t", 0, [Entry(None, b"five")])

    assert values(log) == [*VALUES, b"five"]
    assert log.partition("t", 0).last == 5
    log.close()


def test_committed_offsets_survive(directory: Path) -> None:
    filled(directory)
    log = Log(directory)
    log.commit({("t", 0): 3})
    log.sync()()
    log.close()

    assert Log(directory).committed("t", 0) == 3


def test_damaged_offsets_mean_reading_again_and_are_told(directory: Path) -> None:
    filled(directory)
    log = Log(directory)
    log.commit({("t", 0): 3})
    log.close()
    (directory / "offsets").write_bytes((directory / "offsets").read_bytes().replace(b"3", b"9"))

    log = Log(directory)

    assert log.committed("t", 0) is None
    assert log.counts["corrupt"] == 1
    assert "damaged" in log.reports[0]
    log.close()


@pytest.mark.parametrize("name", ["log.json", "topics/t/topic.json"])
def test_a_damaged_description_is_told_and_costs_no_record(directory: Path, name: str) -> None:
    filled(directory)
    (directory / name).write_bytes(b'{"version": 1, "par')

    log = Log(directory)
    log.create("t", 1, compact=True)

    assert values(log) == VALUES
    assert any("damaged" in line for line in log.reports)
    assert log.topics["t"].compact == (name == "topics/t/topic.json")
    log.close()


def test_a_second_process_is_refused_with_the_first_ones_pid(directory: Path) -> None:
    import os

    first = Log(directory)

    with pytest.raises(LogLocked, match=rf"in use by another process \(pid {os.getpid()}\)"):
        Log(directory)
    first.close()
    Log(directory).close()


def test_a_newer_format_is_refused(directory: Path) -> None:
    filled(directory)
    path = directory / "log.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))

    with pytest.raises(LogVersion, match=r"log format 2; this program knows format 1"):
        Log(directory)


def test_another_number_of_partitions_is_refused(directory: Path) -> None:
    filled(directory)
    log = Log(directory)

    with pytest.raises(PartitionsChanged, match="has 1 partitions, not 8"):
        log.create("t", 8)
    with pytest.raises(LogError, match="no partition 1"):
        log.write("t", 1, [Entry(None, b"")])
    log.close()


def test_a_topic_name_cannot_leave_the_directory(directory: Path) -> None:
    log = Log(directory)
    for name in ("../../x", "..", "/etc/x", "a/b", "é\n"):
        log.create(name, 1)
        log.write(name, 0, [Entry(None, b"v")])
    log.close()

    assert {"../../x", "..", "/etc/x", "a/b", "é\n"} == set(Log(directory).topics)
    assert len(list((directory / "topics").iterdir())) == 5


def test_offsets_are_not_given_again_after_the_machine_stopped(directory: Path) -> None:
    """A power cut may take records that somebody has seen: their offsets must not come back with other records."""
    filled(directory)
    path = directory / "log.json"
    path.write_text(
        path.read_text().replace('"clean": true', '"clean": false').replace('"boot": "', '"boot": "another')
    )

    log = Log(directory)
    offset = log.write("t", 0, [Entry(None, b"after")])

    assert offset == len(VALUES) + JUMP
    assert values(log) == [*VALUES, b"after"]
    assert any("after a jump" in line for line in log.reports)
    log.close()
    again = Log(directory)
    assert again.write("t", 0, [Entry(None, b"then")]) == offset + 1
    again.close()
