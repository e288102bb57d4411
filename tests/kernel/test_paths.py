"""Paths: as typed, and what a relative one starts from."""

import ctypes
import mmap
import os
import re
import threading
import time
from pathlib import Path

from probes.wire import Record
from tests.kernel.actor import call, in_child
from tests.kernel.watch import Watched


def opened(records: list[Record], path: bytes) -> Record:
    (found,) = [r for r in records if r.path == path and r.nr in (2, 257, 437, 85)]
    return found


def relative(folder: str) -> int:
    os.makedirs(folder + "/a/b")
    os.chdir(folder + "/a")
    base = os.open("b", os.O_RDONLY)
    os.close(os.open("from-cwd", os.O_CREAT))
    os.close(os.open("from-dirfd", os.O_CREAT, dir_fd=base))
    os.chdir(folder + "/a/b")
    os.close(os.open("../from-cwd", os.O_RDONLY))
    os.chdir("/")
    os.close(base)
    return 0


def test_a_relative_path_is_told_with_the_folder_it_starts_from(watched: Watched, tmp_path: Path) -> None:
    _, records = watched.run(relative, str(tmp_path))

    assert bytes(tmp_path / "a") == opened(records, b"from-cwd").base
    assert bytes(tmp_path / "a/b") == opened(records, b"from-dirfd").base
    assert bytes(tmp_path / "a/b") == opened(records, b"../from-cwd").base
    assert ["create", "create", "open_read"] == [
        opened(records, p).action for p in (b"from-cwd", b"from-dirfd", b"../from-cwd")
    ]


def chrooted(folder: str) -> int:
    os.makedirs(folder + "/root/etc")
    outside = os.open(folder, os.O_RDONLY)

    def child() -> None:
        os.chroot(folder + "/root")
        os.chdir("/etc")
        os.close(os.open("passwd-inside", os.O_CREAT))
        os.close(os.open("escaped", os.O_CREAT, dir_fd=outside))

    pid = in_child(child)
    os.close(outside)
    return pid


def test_a_path_is_the_tasks_own_below_its_root_and_says_so_outside_of_it(watched: Watched, tmp_path: Path) -> None:
    """A descriptor that leads out of a container (CVE-2024-21626) must not look like a path inside."""
    _, records = watched.run(chrooted, str(tmp_path))

    assert b"/etc" == opened(records, b"passwd-inside").base
    # in front of it stands the root of the tests themselves, when they run below another one
    outside = rb"\(unreachable\)(/.+)?" + re.escape(bytes(tmp_path))
    assert re.fullmatch(outside, opened(records, b"escaped").base or b"")


def mounted(folder: str) -> int:
    def child() -> None:
        call(272, 0x20000)
        call(165, b"none", b"/", None, 0x44000, None)
        call(165, b"tmpfs", folder.encode(), b"tmpfs", 0, None)
        os.makedirs(folder + "/deep/er")
        os.chdir(folder + "/deep/er")
        os.close(os.open("on-a-mount", os.O_CREAT))

    return in_child(child)


def test_a_path_crosses_mounts(watched: Watched, tmp_path: Path) -> None:
    _, records = watched.run(mounted, str(tmp_path))

    assert bytes(tmp_path / "deep/er") == opened(records, b"on-a-mount").base


def from_a_cold_page(path: str) -> int:
    with open(path, "r+b") as file:
        page = mmap.mmap(file.fileno(), 8192)
    at = ctypes.addressof(ctypes.c_char.from_buffer(page)) + 4096
    page.madvise(mmap.MADV_DONTNEED)
    os.posix_fadvise(os.open(path, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
    return call(257, -100, ctypes.c_void_p(at), 0, 0)


def test_a_path_on_a_page_that_is_not_there_is_read(watched: Watched, tmp_path: Path) -> None:
    """Read at sys_enter, such a path is empty: a way past a sensor."""
    file = tmp_path / "page"
    target = bytes(tmp_path / "page")
    file.write_bytes(bytes(4096) + target + bytes(4096 - len(target)))

    fd, records = watched.run(from_a_cold_page, str(file))

    assert fd > 0
    assert [fd] == [r.ret for r in records if r.ret == fd and r.path == target and r.arg[0] == 2**64 - 100]


def long_and_strange(folder: str) -> int:
    os.chdir(folder)
    for name in (b"new\nline", b"\xff\xfe", b"\x1b[31mred", b"a" * 255):
        os.close(os.open(name, os.O_CREAT))
    os.chdir("/")
    path = (folder + "/.").encode() * 1
    path += b"/." * ((4095 - len(path)) // 2)
    os.close(os.open(path, os.O_RDONLY))
    return len(path)


def test_names_come_through_byte_for_byte(watched: Watched, tmp_path: Path) -> None:
    length, records = watched.run(long_and_strange, str(tmp_path))

    for name in (b"new\nline", b"\xff\xfe", b"\x1b[31mred", b"a" * 255):
        assert bytes(tmp_path) == opened(records, name).base
    assert [length] == [len(r.path or b"") for r in records if r.path and len(r.path) > 3000]


def deep(folder: str) -> int:
    os.chdir(folder)
    for _ in range(100):
        os.mkdir("d")
        os.chdir("d")
    os.close(os.open("far-below", os.O_CREAT))
    os.chdir("/")
    return 0


def test_a_very_deep_folder_is_told_as_cut(watched: Watched, tmp_path: Path) -> None:
    _, records = watched.run(deep, str(tmp_path))

    base = opened(records, b"far-below").base or b""
    assert base.startswith(b".../d/d/d")
    assert base.endswith(b"/d")


def unreadable() -> int:
    return call(257, -100, 8, 0, 0)


def test_a_path_that_cannot_be_read_is_marked(watched: Watched) -> None:
    result, records = watched.run(unreadable)

    bad = [(r.ret, r.path_bad, r.path, r.base) for r in records if r.ret == result and r.nr == 257]
    assert [(result, True, None, None)] == bad


def from_memory_that_goes(pipe: str) -> int:
    """Opens a pipe, which waits for its other end; the path's page goes meanwhile."""
    os.mkfifo(pipe)
    page = ctypes.CDLL(None).mmap
    page.restype = ctypes.c_void_p
    at = page(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_long(0))
    ctypes.memmove(at, pipe.encode(), len(pipe) + 1)
    opened: list[int] = []
    thread = threading.Thread(target=lambda: opened.append(call(257, -100, ctypes.c_void_p(at), 0, 0)))
    thread.start()
    waiting = f"/proc/self/task/{thread.native_id}/syscall"
    for _ in range(2000):
        with open(waiting) as file:
            if file.read().startswith("257 "):
                break
        time.sleep(0.005)
    call(11, at, 4096)
    os.close(os.open(pipe, os.O_WRONLY))
    thread.join()
    os.close(opened[0])
    return opened[0]


def test_a_file_is_told_when_the_memory_of_its_path_went_while_it_was_opened(watched: Watched, tmp_path: Path) -> None:
    """Another thread can take the path away before the call returns: that hides nothing."""
    fd, records = watched.run(from_memory_that_goes, str(tmp_path / "pipe"))

    (bad,) = [r for r in records if r.path_bad]
    assert (fd, "open_read", None, bytes(tmp_path / "pipe")) == (bad.ret, bad.action, bad.path, bad.base)


def read_or_written(folder: str) -> int:
    path = folder + "/f"
    for flags in (os.O_WRONLY | os.O_CREAT, os.O_RDONLY, os.O_RDWR, os.O_CREAT | os.O_WRONLY, os.O_TRUNC, os.O_APPEND):
        os.close(os.open(path, flags))
    return 0


def test_reading_writing_and_making_a_file_are_told_apart(watched: Watched, tmp_path: Path) -> None:
    """O_CREAT on a file that is there makes nothing: the kernel knows which it was."""
    _, records = watched.run(read_or_written, str(tmp_path))

    actions = [r.action for r in records if r.path == bytes(tmp_path / "f")]
    assert ["create", "open_read", "open_write", "open_write", "open_write", "open_read"] == actions
