"""The note of when this machine was last watched: readable whatever became of the process or the disk."""

import os
from pathlib import Path

import pytest

from probes import state
from probes.state import State

BOOT, OTHER = "6f9619ff-8b86-d011-b42d-00cf4fc964ff", "00000000-0000-0000-0000-000000000001"
LATER = 1 << 62


def noted(folder: Path, times: int = 1, boot: str = BOOT) -> int:
    """Stamps so often; the last time that was noted."""
    one = State(str(folder), boot)
    one.blind(LATER)
    for _ in range(times):
        one.stamp(at_once=True)
    one.close()
    return since(folder) or 0


def since(folder: Path) -> int | None:
    one = State(str(folder), BOOT)
    note = one.blind(LATER)
    one.close()
    return note["blind"][0] if note else None


def test_the_very_first_start_was_never_blind(tmp_path: Path) -> None:
    assert {} == State(str(tmp_path), BOOT).blind(LATER)


def test_a_start_knows_since_when_nobody_watched_and_whether_the_machine_was_restarted(tmp_path: Path) -> None:
    last = noted(tmp_path)

    assert {"blind": [last, LATER], "rebooted": False} == State(str(tmp_path), BOOT).blind(LATER)
    assert {"blind": [last, LATER], "rebooted": True} == State(str(tmp_path), OTHER).blind(LATER)


@pytest.mark.parametrize("cut", range(0, state.SIZE, 7))
def test_a_note_that_was_torn_leaves_the_one_before_it(tmp_path: Path, cut: int) -> None:
    """Any part of the newer record may be what was there before."""
    noted(tmp_path, 2)
    file = tmp_path / "probe.state"
    before = file.read_bytes()
    older = since(tmp_path)
    newer = noted(tmp_path)
    after = bytearray(file.read_bytes())
    slot = next(at for at in (0, state.SECTOR) if after[at : at + state.SIZE] != before[at : at + state.SIZE])
    after[slot + cut : slot + state.SIZE] = before[slot + cut : slot + state.SIZE]
    file.write_bytes(after)

    assert older is not None and older < newer
    assert older == since(tmp_path)


@pytest.mark.parametrize("junk", [b"", b"\0" * 8192, b"\xff" * 8192, b'{"boot": "x", "last": 5}'])
def test_a_file_that_says_nothing_is_a_first_start_and_is_written_over(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "probe.state").write_bytes(junk)

    assert since(tmp_path) is None
    assert noted(tmp_path)


def test_it_is_overwritten_in_place_and_does_not_grow(tmp_path: Path) -> None:
    """No rename, which would wait for a busy disk."""
    noted(tmp_path, 2)
    first = os.stat(tmp_path / "probe.state")
    noted(tmp_path, 100)
    then = os.stat(tmp_path / "probe.state")

    assert (first.st_ino, first.st_size) == (then.st_ino, then.st_size)
    assert ["probe.state"] == os.listdir(tmp_path)


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = State(str(tmp_path / "none"), BOOT)
    for _ in range(3):
        one.stamp(at_once=True)

    assert {} == one.blind(LATER)
    assert 1 == capsys.readouterr().err.count("\n")
