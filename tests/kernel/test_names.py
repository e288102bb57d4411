"""What is done to names, what is refused and what is asked of DNS is counted in the kernel once it is usual; and which
file an open really got."""

import errno
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probes.loader import Attached
from probes.wire import Record
from tests.kernel.actor import call
from tests.kernel.watch import Watched, make_usual


def told(watched: Watched, action: str, function: Callable[..., Any], *args: Any) -> list[Record]:
    return [r for r in watched.run(function, *args)[1] if r.action == action]


def acts(path: bytes, other: bytes) -> dict[str, int]:
    """Each once, on a file that is there; what the calls returned."""
    done = {}
    done["mkdir"] = call(83, path + b".d", 0o700)
    done["rmdir"] = call(84, path + b".d")
    done["chmod"] = call(90, path, 0o600)
    done["chown"] = call(92, path, 0, 0)
    done["link"] = call(86, path, other)
    done["rename"] = call(82, other, other + b".2")
    done["symlink"] = call(88, path, other)
    done["truncate"] = call(76, path, 0)
    done["setxattr"] = call(188, path, b"user.a", b"x", 1, 0)
    done["removexattr"] = call(197, path, b"user.a")
    call(87, other + b".2")
    done["unlink"] = call(87, other)
    return done


def test_each_act_on_a_name_is_sent_until_it_is_usual_and_then_counted(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    arguments = (bytes(file), bytes(tmp_path / "other"))
    done, records = watched.run(acts, *arguments)
    mine = [r for r in records if r.kind == "file" and r.action in done]
    assert set(done) == {r.action for r in mine}
    make_usual(attached, known, *{r.key for r in mine})

    _, again = watched.run(acts, *arguments)

    assert [] == [(r.action, r.path) for r in again if r.kind == "file" and r.action in done]
    assert len(mine) == sum(dict(attached.counts.repeats()).values())


def test_another_name_mode_owner_result_and_way_are_new(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    file, other = tmp_path / "file", tmp_path / "else"
    file.touch()
    other.touch()

    def chmod(path: bytes, mode: int) -> int:
        return call(90, path, mode)

    def chown(path: bytes, owner: int) -> int:
        return call(92, path, owner, 0)

    def chmod_by_fd(path: bytes, mode: int) -> None:
        fd = os.open(path, os.O_RDONLY)
        call(91, fd, mode)
        os.close(fd)

    (first,) = told(watched, "chmod", chmod, bytes(file), 0o600)
    (owned,) = told(watched, "chown", chown, bytes(file), 0)
    make_usual(attached, known, first.key, owned.key)

    assert [] == told(watched, "chmod", chmod, bytes(file), 0o600)
    assert [] == told(watched, "chown", chown, bytes(file), 0)
    assert 1 == len(told(watched, "chmod", chmod, bytes(other), 0o600))
    assert 1 == len(told(watched, "chmod", chmod, bytes(file), 0o755)), "another mode"
    assert 1 == len(told(watched, "chown", chown, bytes(file), 12345)), "another owner"
    assert 1 == len(told(watched, "chmod", chmod_by_fd, bytes(file), 0o600)), "another call"
    file.unlink()
    assert 1 == len(told(watched, "chmod", chmod, bytes(file), 0o600)), "another result"


def test_a_relative_name_is_usual_in_its_folder_only(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()

    def make(folder: bytes, name: bytes) -> None:
        fd = os.open(folder, os.O_PATH)
        call(258, fd, name, 0o700)
        call(263, fd, name, 0x200)
        os.close(fd)

    keys = [r.key for r in watched.run(make, bytes(here), b"x")[1] if r.action in ("mkdir", "unlink")]
    make_usual(attached, known, *keys)

    assert [] == told(watched, "mkdir", make, bytes(here), b"x")
    assert 1 == len(told(watched, "mkdir", make, bytes(there), b"x"))


def test_names_that_differ_by_chance_are_one_shape_to_all_acts(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    def make_and_remove(path: bytes) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        call(87, path)

    shapes = [
        told(watched, "unlink", make_and_remove, bytes(tmp_path / name))[0].shape
        for name in ("job-1.lock", "job-7731.lock", "job-1.pid")
    ]
    make_usual(attached, known, shapes[0])

    assert shapes[0] == shapes[1] != shapes[2]
    assert [] == told(watched, "unlink", make_and_remove, bytes(tmp_path / "job-99.lock"))


def test_both_names_of_a_rename_count(watched: Watched, attached: Attached, known: set[int], tmp_path: Path) -> None:
    source = tmp_path / "source"

    def rename(source: bytes, to: bytes) -> None:
        os.close(os.open(source, os.O_CREAT | os.O_WRONLY))
        call(82, source, to)

    (first,) = told(watched, "rename", rename, bytes(source), bytes(tmp_path / "a"))
    make_usual(attached, known, first.key)

    assert [] == told(watched, "rename", rename, bytes(source), bytes(tmp_path / "a"))
    assert 1 == len(told(watched, "rename", rename, bytes(source), bytes(tmp_path / "b")))


def test_setting_a_time_is_always_sent_touching_is_not(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()

    def touch(path: bytes) -> None:
        call(280, -100, path, 0, 0)

    def back(path: bytes) -> None:
        os.utime(path, (1_000_000_000, 1_000_000_000))

    (now,) = told(watched, "utime", touch, bytes(file))
    make_usual(attached, known, now.key)

    assert [] == told(watched, "utime", touch, bytes(file))
    assert [0] == [r.key for r in told(watched, "utime", back, bytes(file))]


def test_a_refused_open_has_a_key_of_its_own(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    """That it was refused is usual; that it succeeds is not."""
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()

    def write(path: bytes) -> int:
        result = call(2, path, os.O_WRONLY)
        if result >= 0:
            os.close(result)
        return result

    value, records = watched.run(write, bytes(folder))
    assert -errno.EISDIR == value
    (refused,) = [r for r in records if r.path == bytes(folder)]
    make_usual(attached, known, refused.key)

    assert [] == [r for r in watched.run(write, bytes(folder))[1] if r.path == bytes(folder)]
    assert 1 == len([r for r in watched.run(write, bytes(other))[1] if r.path == bytes(other)])
    folder.rmdir()
    folder.touch()
    assert 1 == len([r for r in watched.run(write, bytes(folder))[1] if r.path == bytes(folder)])


@pytest.mark.parametrize("way", ["open", "openat", "openat2", "creat"])
def test_every_way_to_open_has_a_key(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path, way: str
) -> None:
    file = tmp_path / "file"
    file.touch()

    def read(path: bytes, way: str) -> int:
        how = struct.pack("QQQ", os.O_RDWR, 0, 0)
        if way == "open":
            fd = call(2, path, os.O_RDWR)
        elif way == "openat":
            fd = call(257, -100, path, os.O_RDWR)
        elif way == "openat2":
            fd = call(437, -100, path, how, len(how))
        else:
            fd = call(85, path, 0o600)
        os.close(fd)
        return fd

    def opens() -> list[Record]:
        return [r for r in watched.run(read, bytes(file), way)[1] if r.path == bytes(file)]

    (first,) = opens()
    make_usual(attached, known, first.key)

    assert [] == opens()
    file.unlink()
    file.touch()
    assert [first.key] != [r.key for r in opens()]


def test_an_open_by_a_link_tells_the_file_it_got(watched: Watched, tmp_path: Path) -> None:
    """So that a link that is bent to a secret is seen by who looks at paths."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(file)

    def read(path: bytes) -> None:
        os.close(os.open(path, os.O_RDONLY))

    (record,) = [r for r in watched.run(read, bytes(link))[1] if (r.path or b"") == bytes(link)]

    assert bytes(file) == record.real


def test_a_file_met_again_by_its_shape_is_known_by_its_inode(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    """The second time its path is not walked; and it is counted under the same shape."""
    file = tmp_path / "page-17.txt"
    file.touch()

    def read(path: bytes, times: int) -> None:
        for _ in range(times):
            os.close(os.open(path, os.O_RDONLY))

    def opens(path: Path, times: int) -> list[Record]:
        return [r for r in watched.run(read, bytes(path), times)[1] if r.path == bytes(path)]

    (first,) = opens(file, 1)
    make_usual(attached, known, first.shape)

    assert [] == opens(file, 5)
    assert {first.shape: 5} == dict(attached.counts.repeats())
    attached.counts.remove([first.shape])
    assert 1 == len(opens(file, 1)), "the shape is no longer usual"


def ask(port_of_server: int, names: list[str], kind: int, extra: bytes = b"") -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for number, name in enumerate(names):
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        header = struct.pack(">HHHHHH", number * 31 + 7, 0x100, 1, 0, 0, 1 if extra else 0)
        question = labels + b"\0" + struct.pack(">HH", kind, 1)
        sock.sendto(header + question + extra, ("127.0.0.53", port_of_server))
    sock.close()


def test_a_question_that_is_usual_is_counted_whatever_its_number(
    watched: Watched, attached: Attached, known: set[int]
) -> None:
    """Another name, another type and a longer name are new; what is appended is not looked at."""
    (first,) = told(watched, "query", ask, 53, ["db.internal"], 1)
    make_usual(attached, known, first.key)

    assert [] == told(watched, "query", ask, 53, ["db.internal"] * 7, 1)
    assert {first.key: 7} == dict(attached.counts.repeats())
    assert [] == told(watched, "query", ask, 53, ["db.internal"], 1, b"\0\0\x29\x10\0\0\0\0\0\0\0")
    others = ["db.internal.evil", "a.db.internal", "db.interna", "dc.internal"]
    assert len(others) == len(told(watched, "query", ask, 53, others, 1))
    assert 1 == len(told(watched, "query", ask, 53, ["db.internal"], 16))
