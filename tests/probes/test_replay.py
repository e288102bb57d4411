"""Recordings come back as they were written, and damage is named."""

from pathlib import Path

import pytest

from probes.replay import MAGIC, BadRecording, Recorder, read


def record(path: Path, *batches: bytes) -> Path:
    with Recorder(path) as recorder:
        for batch in batches:
            recorder.write(batch)
    return path


def test_what_was_recorded_comes_back(tmp_path: Path) -> None:
    """In order, byte for byte, over two sessions."""
    path = record(tmp_path / "r", b"one", b"", b"three")
    record(path, b"four")

    assert [b"one", b"", b"three", b"four"] == list(read(path))


def test_a_torn_tail_is_left_out(tmp_path: Path) -> None:
    """The power went while the last one was written."""
    path = record(tmp_path / "r", b"one", b"two" * 100)
    path.write_bytes(path.read_bytes()[:-7])

    assert [b"one"] == list(read(path))


def test_damage_is_named_with_its_place(tmp_path: Path) -> None:
    """A flipped bit is never replayed."""
    path = record(tmp_path / "r", b"one", b"two")
    data = bytearray(path.read_bytes())
    data[len(MAGIC) + 9] ^= 1
    path.write_bytes(data)

    with pytest.raises(BadRecording, match=f"byte {len(MAGIC)}"):
        list(read(path))


def test_another_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Neither read nor appended to."""
    path = tmp_path / "notes.txt"
    path.write_text("mine")

    with pytest.raises(BadRecording):
        list(read(path))
    with pytest.raises(BadRecording):
        Recorder(path)
    assert "mine" == path.read_text()
