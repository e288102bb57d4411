"""The folder of compiled programs: what is in it is loaded into the kernel, so it must be whole and ours alone."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from probes import compiled
from probes.bpf import Shape
from probes.compiled import Compiled, Foreign, Map, Program, Store, key, portable

KEY, OTHER = "ab" * 32, "cd" * 32
SOME = Compiled(
    [Map("rows", Shape(2, 4, 8, 512, 0))],
    [Program("on_x", bytes(range(48)), [(0, "rows")], [(2, "SEED")])],
    "GPL",
)


class Kept:
    """A folder with one file, and what was said about it."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.store = Store(folder, self.said.append)
        self.folder, self.file = folder, folder / f"{KEY}.programs"
        self.store.save(KEY, SOME)
        assert [] == self.said

    def load(self) -> Compiled | None:
        return self.store.load(KEY)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "made" / "programs")


def test_what_was_saved_is_loaded_and_nobody_else_may_touch_it(kept: Kept) -> None:
    assert kept.load() == SOME
    assert [] == kept.said
    assert (0o40700, 0o100600) == (kept.folder.stat().st_mode, kept.file.stat().st_mode)
    assert [kept.file.name] == os.listdir(kept.folder)


def test_what_was_never_saved_is_not_there_and_no_trouble(kept: Kept) -> None:
    assert kept.store.load(OTHER) is None
    assert [] == kept.said


def flip(kept: Kept, at: int) -> None:
    data = bytearray(kept.file.read_bytes())
    data[at] ^= 1
    kept.file.write_bytes(data)


def link(kept: Kept) -> None:
    kept.file.rename(kept.folder / "elsewhere")
    kept.file.symlink_to("elsewhere")


def folder_link(kept: Kept) -> None:
    kept.folder.rename(kept.folder.parent / "elsewhere")
    kept.folder.symlink_to("elsewhere")


def pipe(kept: Kept) -> None:
    kept.file.unlink()
    os.mkfifo(kept.file, 0o600)


SPOILT: dict[str, Callable[[Kept], None]] = {
    "a bit of the code": lambda kept: flip(kept, -1),
    "a bit of the head": lambda kept: flip(kept, 3),
    "cut": lambda kept: os.truncate(kept.file, kept.file.stat().st_size - 1),
    "empty": lambda kept: os.truncate(kept.file, 0),
    "another's by its name": lambda kept: kept.file.write_bytes(compiled._encode(SOME, OTHER)) and None,
    "a group may write": lambda kept: kept.file.chmod(0o660),
    "others may write": lambda kept: kept.file.chmod(0o602),
    "others may read": lambda kept: kept.file.chmod(0o604),
    "a link": link,
    "a pipe": pipe,
    "others may write the folder": lambda kept: kept.folder.chmod(0o1777),
    "a link to the folder": folder_link,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_file_that_is_not_whole_or_not_ours_alone_is_not_used_and_it_is_said(
    kept: Kept, spoil: Callable[[Kept], None]
) -> None:
    spoil(kept)

    assert kept.load() is None
    assert 1 == len(kept.said)
    assert str(kept.folder) in kept.said[0]
    assert kept.said[0].endswith("; compiling instead")


@pytest.mark.parametrize("owned", ["file", "folder"])
def test_what_belongs_to_another_user_is_not_used(kept: Kept, owned: str) -> None:
    if os.geteuid():
        pytest.skip("needs root: a file of another user")
    os.chown(getattr(kept, owned), 12345, 12345)

    assert kept.load() is None
    assert ["not ours alone" in line for line in kept.said] == [True]


def test_a_damaged_file_is_replaced(kept: Kept) -> None:
    flip(kept, -1)
    kept.store.save(KEY, SOME)

    assert kept.load() == SOME


def test_a_folder_that_cannot_be_made_is_said_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    store = Store(tmp_path / "file" / "programs", said.append)

    assert store.load(KEY) is None
    store.save(KEY, SOME)
    assert 2 == len(said)


def test_the_files_that_were_used_last_are_kept(kept: Kept) -> None:
    """Using one counts: a kernel that is booted now and then need not compile each time."""
    names = [f"{i:064x}" for i in range(compiled.KEPT)]
    for i, name in enumerate(names):
        os.utime(kept.file, (i, i))
        for j, made in enumerate(names[:i]):
            os.utime(kept.folder / f"{made}.programs", (j + 1, j + 1))
        assert kept.load() == SOME
        kept.store.save(name, SOME)

    assert {KEY, *names[1:]} == {name.removesuffix(".programs") for name in os.listdir(kept.folder)}


def test_what_was_never_finished_is_removed_once_nobody_can_be_at_it(kept: Kept) -> None:
    old, new = kept.folder / "a-1.new", kept.folder / "a-2.new"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    kept.store.save(KEY, SOME)

    assert (False, True) == (old.exists(), new.exists())


def test_another_kernel_text_or_compiler_is_another_key() -> None:
    here = os.uname()
    others = [
        os.uname_result((here[0], here[1], here[2] + "x", here[3], here[4])),
        os.uname_result((here[0], here[1], here[2], here[3] + "x", here[4])),
        os.uname_result((here[0], here[1], here[2], here[3], "aarch64")),
    ]
    keys = [key("a", "b", here), key("ab", "", here), key("a", "c", here), *(key("a", "b", one) for one in others)]

    assert len(keys) == len(set(keys))
    assert keys[0] == key("a", "b", os.uname_result((here[0], "another name", here[2], here[3], here[4])))


def instruction(operation: int, source: int, immediate: int) -> bytes:
    return struct.pack("<BBhi", operation, source << 4, 0, immediate)


@pytest.mark.parametrize(
    "code",
    [
        instruction(0x85, 1, 3),  # a call of a function of its own
        instruction(0x18, 1, 9) + bytes(8),  # a map that nobody named
        instruction(0x18, 2, 7) + bytes(8),  # a value in a map: not made by bcc
    ],
)
def test_what_only_the_compilers_process_can_load_is_refused(code: bytes) -> None:
    with pytest.raises(Foreign, match="on_x"):
        portable("on_x", code, {7: "rows"}, {})


def test_the_second_half_of_a_load_is_no_instruction() -> None:
    """Its bytes may look like anything."""
    code = instruction(0x18, 0, 1) + instruction(0x18, 1, 7) + instruction(0x95, 0, 0)

    assert portable("on_x", code, {7: "rows"}, {}).maps == []
