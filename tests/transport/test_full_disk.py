"""A full disk: a clear error, no half record, and work goes on when there is space."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.transport.log import Entry, Log, LogError, LogFull
from tests.transport.harness import CountingApp


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "wonted-test", mount], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small tmpfs (needs root): {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


def fill(ballast: Path) -> None:
    with suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))


def read(log: Log) -> list[bytes | None]:
    part, offset, found = log.partition("t", 0), 0, []
    while offset < part.next:
        records, offset = part.read(offset)
        found += [record.value for record in records]
    return found


def test_a_record_that_does_not_fit_is_refused_whole(small_disk: Path) -> None:
    log = Log(small_disk / "log")
    log.create("t", 1)
    values = []
    with pytest.raises(LogFull, match=r"no space for a record in .*/log.*free some there, or lower log\.size"):
        for number in range(10_000):
            value = bytes([number % 256]) * 5000
            log.write("t", 0, [Entry(None, value)])
            values.append(value)

    assert len(values) > 100
    assert values == read(log)
    size = log.partition("t", 0).segments[-1].path.stat().st_size
    with pytest.raises(LogFull):
        log.write("t", 0, [Entry(None, bytes(100_000))])
    assert size == log.partition("t", 0).segments[-1].path.stat().st_size
    log.close()


def test_the_log_goes_on_when_there_is_space(small_disk: Path) -> None:
    """Also a new segment and the committed offsets, that could not be made before."""
    log = Log(small_disk / "log", segment=100_000)
    log.create("t", 1)
    ballast = small_disk / "ballast"
    log.write("t", 0, [Entry(None, b"before")])
    fill(ballast)
    with pytest.raises(LogFull):
        for _ in range(100):
            log.write("t", 0, [Entry(None, bytes(90_000))])
    taken = log.partition("t", 0).next
    log.commit({("t", 0): taken})
    with pytest.raises(LogError, match=r"cannot make .* durable"):
        log.sync()()

    ballast.unlink()
    offset = log.write("t", 0, [Entry(None, b"after")])
    log.sync()()
    log.close()

    again = Log(small_disk / "log")
    assert offset == taken
    assert read(again)[0] == b"before"
    assert read(again)[-1] == b"after"
    assert again.committed("t", 0) == taken
    assert again.counts["cut"] == again.counts["corrupt"] == 0
    again.close()


def test_a_log_on_a_full_disk_opens_and_is_read(small_disk: Path) -> None:
    log = Log(small_disk / "log")
    log.create("t", 1)
    log.write("t", 0, [Entry(None, b"before")])
    log.close()
    fill(small_disk / "ballast")

    log = Log(small_disk / "log")
    log.create("t", 1)

    assert read(log) == [b"before"]
    with pytest.raises(LogFull):
        for _ in range(10):
            log.write("t", 0, [Entry(None, bytes(5000))])
    log.close()


def test_an_app_survives_a_full_disk_and_loses_nothing_acknowledged(small_disk: Path, tmp_path: Path) -> None:
    """A sender is told; a table's change waits, and nothing is committed before it is written."""
    app = CountingApp("embedded://", small_disk, "count", "send")
    app.wait_for("sent", 200)
    ballast = small_disk / "ballast"
    fill(ballast)
    app.wait_for("full", 3)
    ballast.unlink()
    app.wait_for("sent", len(app.acknowledged()) + 200)
    app.kill()
    acknowledged = app.acknowledged()

    app = CountingApp("embedded://", small_disk, "count")
    app.wait_for("ready")
    app.wait_for("timer", 3)
    applied = [number for numbers in app.applied().values() for number in numbers]
    app.stop()

    assert set() == acknowledged - set(applied)
    assert len(applied) == len(set(applied))
