"""Processes: what ran, with exactly which arguments, from where, and how it ended."""

import ctypes
import errno
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from probes import wire
from probes.wire import Record
from tests.kernel.actor import call, in_child, spawn
from tests.kernel.watch import Watched

CASES: dict[str, list[bytes]] = {
    "plain": [b"/bin/true"],
    "words": [b"/bin/true", b"a", b"b c", b""],
    "empty first": [b"", b"x"],
    "another name": [b"not-true", b"--flag=1"],
    "newline": [b"/bin/true", b"one\ntwo", b"\ttab"],
    "terminal escape": [b"/bin/true", b"\x1b]0;owned\x07\x1b[2J"],
    "invalid utf-8": [b"/bin/true", b"\xff\xfe\x80", "ünïcödé".encode()],
    "long": [b"/bin/true", b"x" * 12_000],
}


def started(records: list[Record], pid: int) -> list[Record]:
    return [r for r in records if r.type == wire.EXEC and r.pid == pid and r.ret == 0]


@pytest.mark.parametrize("argv", CASES.values(), ids=CASES.keys())
def test_an_exec_is_told_with_exactly_its_arguments(watched: Watched, argv: list[bytes]) -> None:
    def run(*argv: bytes) -> int:
        return spawn(list(argv), path=b"/bin/true")

    pid, records = watched.run(run, *argv)

    (exec_,) = started(records, pid)
    assert (tuple(argv), False) == (exec_.argv, exec_.argv_cut)
    assert (b"/bin/true", b"true") == (exec_.path, exec_.comm)
    assert b"/true" == exec_.exe[-5:] if exec_.exe else False
    assert watched.actor.pid == exec_.ppid


def test_23_short_lived_programs_are_23_execs_forks_and_exits(watched: Watched) -> None:
    def run() -> list[int]:
        return [spawn([b"/bin/true", str(i).encode()]) for i in range(23)]

    pids, records = watched.run(run)

    execs = [r for r in records if r.type == wire.EXEC and r.ret == 0]
    assert [(pid, (b"/bin/true", str(i).encode())) for i, pid in enumerate(pids)] == [(r.pid, r.argv) for r in execs]
    assert pids == [r.child for r in records if r.type == wire.FORK]
    assert [(pid, 0) for pid in pids] == [(r.pid, r.ret) for r in records if r.type == wire.EXIT]


def test_an_empty_environment_hides_no_arguments(watched: Watched) -> None:
    def run() -> int:
        return spawn([b"/bin/true", b"a", b"b"], env={})

    pid, records = watched.run(run)

    assert [(b"/bin/true", b"a", b"b")] == [r.argv for r in started(records, pid)]


def test_a_script_is_told_with_its_own_path_and_the_interpreter_that_runs(watched: Watched, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh -e\n:\n")
    script.chmod(0o755)

    def run(path: bytes) -> int:
        return spawn([path, b"argument"])

    pid, records = watched.run(run, bytes(script))

    (exec_,) = started(records, pid)
    assert bytes(script) == exec_.path
    assert (b"/bin/sh", b"-e", bytes(script), b"argument") == exec_.argv
    assert bytes(Path("/bin/sh").resolve()) == exec_.exe


def test_5000_arguments_are_cut_with_a_mark(watched: Watched) -> None:
    def run() -> int:
        return spawn([b"/bin/true", *[b"argument-%04d" % i for i in range(5000)]])

    pid, records = watched.run(run)

    (exec_,) = started(records, pid)
    assert exec_.argv_cut
    assert (b"/bin/true", b"argument-0000", b"argument-0001") == exec_.argv[:3]
    assert 16 << 10 == sum(len(a) + 1 for a in exec_.argv) - 1


def test_a_refused_exec_is_told_with_what_was_typed(watched: Watched, tmp_path: Path) -> None:
    plain = tmp_path / "no-program"
    plain.write_text("text")

    def run(folder: bytes) -> int:
        os.chdir(folder)
        pid = spawn([b"no-program", b"-x", b"y z"])
        os.chdir(b"/")
        return pid

    pid, records = watched.run(run, bytes(tmp_path))

    (exec_,) = [r for r in records if r.type == wire.EXEC and r.pid == pid]
    assert -errno.EACCES == exec_.ret
    assert (b"no-program", bytes(tmp_path)) == (exec_.path, exec_.base)
    assert (b"no-program", b"-x", b"y z") == exec_.argv


def test_a_program_without_a_name_is_marked(watched: Watched, tmp_path: Path) -> None:
    def memfd() -> int:
        fd = os.memfd_create("hidden", 0)
        os.sendfile(fd, os.open("/bin/true", os.O_RDONLY), 0, 1 << 20)
        pid = spawn([b"innocent"], path=b"/proc/self/fd/%d" % fd)
        os.close(fd)
        return pid

    def deleted(copy: bytes) -> int:
        writer = os.open(copy, os.O_WRONLY | os.O_CREAT, 0o755)
        os.sendfile(writer, os.open("/bin/true", os.O_RDONLY), 0, 1 << 20)
        os.close(writer)
        fd = os.open(copy, os.O_PATH)
        os.unlink(copy)
        pid = spawn([b"gone"], path=b"/proc/self/fd/%d" % fd)
        os.close(fd)
        return pid

    pid, records = watched.run(memfd)
    (exec_,) = started(records, pid)
    assert ("memfd", b"memfd:hidden") == (exec_.hint, exec_.exe)

    pid, records = watched.run(deleted, bytes(tmp_path / "copy"))
    (exec_,) = started(records, pid)
    assert ("deleted", bytes(tmp_path / "copy")) == (exec_.hint, exec_.exe)

    pid, records = watched.run(true)
    assert [None] == [r.hint for r in started(records, pid)]


def true() -> int:
    return spawn([b"/bin/true"])


def test_an_execveat_of_a_descriptor_is_an_exec(watched: Watched) -> None:
    def run() -> int:
        fd = os.open("/bin/true", os.O_PATH)
        argv = (ctypes.c_char_p * 3)(b"by-descriptor", b"1", None)
        pid = in_child(lambda: call(322, fd, b"", argv, 0, 0x1000))
        os.close(fd)
        return pid

    pid, records = watched.run(run)

    (exec_,) = started(records, pid)
    assert (b"by-descriptor", b"1") == exec_.argv
    assert bytes(Path("/bin/true").resolve()) == exec_.exe


def test_an_exec_on_a_socket_says_so_even_when_the_socket_was_inherited(watched: Watched) -> None:
    def run() -> tuple[int, int]:
        server = socket.create_server(("127.0.0.1", 0))
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))

        def child() -> None:
            # the grandchild did nothing itself: its streams came by fork
            for fd in (0, 1):
                os.dup2(client.fileno(), fd)
            spawn([b"/bin/true", b"on-a-socket"])

        in_child(child)
        client.close()
        server.close()
        return port

    port, records = watched.run(run)

    (exec_,) = [r for r in records if r.type == wire.EXEC and r.argv[1:] == (b"on-a-socket",)]
    assert (0b011, "127.0.0.1", port) == (exec_.stdio, exec_.addr, exec_.port)
    dups = [r for r in records if r.action == "dup2"]
    assert [(0, 0b01, port), (1, 0b11, port)] == [(r.ret, r.stdio, r.port) for r in dups]


def test_the_end_of_a_process_says_how(watched: Watched) -> None:
    def run() -> list[int]:
        pids = []
        for end in (lambda: os._exit(3), lambda: os.kill(os.getpid(), 9)):
            pid = os.fork()
            if not pid:
                end()
            os.waitpid(pid, 0)
            pids.append(pid)
        return pids

    (exited, killed), records = watched.run(run)

    assert {exited: 3, killed: -9} == {r.pid: r.ret for r in records if r.type == wire.EXIT}


def test_a_thread_is_no_process(watched: Watched) -> None:
    def run() -> int:
        threads = [threading.Thread(target=os.getpid) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return in_child(lambda: threading.Thread(target=lambda: os._exit(4)).start())

    pid, records = watched.run(run)

    assert [pid] == [r.child for r in records if r.type == wire.FORK]
    assert [(pid, 4)] == [(r.pid, r.ret) for r in records if r.type == wire.EXIT]


def test_a_process_whose_threads_end_at_once_ends_once(watched: Watched) -> None:
    """Older kernels (6.12) do not say which thread was the last."""

    def run() -> list[int]:
        def child() -> None:
            for _ in range(12):
                threading.Thread(target=threading.Event().wait, daemon=True).start()
            os._exit(0)

        return [in_child(child) for _ in range(30)]

    pids, records = watched.run(run)

    assert pids == [r.pid for r in records if r.type == wire.EXIT]


def test_an_exec_by_a_thread_is_told_under_the_process(watched: Watched) -> None:
    def run() -> int:
        pid = os.fork()
        if not pid:
            threading.Thread(target=lambda: os.execv("/bin/true", ["by-a-thread"])).start()
            threading.Event().wait()
        os.waitpid(pid, 0)
        return pid

    pid, records = watched.run(run)

    (exec_,) = started(records, pid)
    assert (pid, pid, (b"by-a-thread",)) == (exec_.pid, exec_.tid, exec_.argv)
    assert pid != exec_.arg[0] > 0


def test_a_process_in_a_pid_namespace_is_told_with_both_numbers(watched: Watched) -> None:
    def run() -> int:
        def child() -> None:
            call(272, 0x20000000)
            spawn([b"/bin/true", b"inside"])

        return in_child(child)

    parent, records = watched.run(run)

    (exec_,) = [r for r in records if r.type == wire.EXEC and r.argv[1:] == (b"inside",)]
    assert (1, parent) == (exec_.vpid, exec_.ppid)
    assert exec_.pid > 1
    (fork,) = [r for r in records if r.type == wire.FORK and r.child == exec_.pid]
    assert 1 == fork.arg[0]


def test_times_are_the_wall_clocks_and_in_order(watched: Watched) -> None:
    before = time.time_ns()
    _, records = watched.run(true)
    after = time.time_ns()

    floods = ("file", "connect", "accept", "dns")  # a ring of their own
    for ring in ([r.time for r in records if (r.kind in floods) == which] for which in (True, False)):
        assert sorted(ring) == ring
        assert before - 2_000_000 <= ring[0] <= ring[-1] <= after + 2_000_000
