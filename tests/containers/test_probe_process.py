"""The probe process by itself: how it starts, how it refuses, how it ends."""

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from probes import rights
from tests.containers.conftest import ROOT, Watch

WITHOUT = ["setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon", "--inh-caps=-sys_admin,-bpf,-perfmon"]


def test_without_the_rights_it_refuses_and_says_how_to_mend_it(tmp_path: Path) -> None:
    """Exit code 4, one line on stderr, and the same over the socket."""
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv here: apt-get install util-linux")
    path = str(tmp_path / "wonted.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        orders = json.dumps({"socket": path, "settings": {}, "state_dir": str(tmp_path)}).encode() + b"\n"
        process = subprocess.Popen(
            [*WITHOUT, sys.executable, "-m", "probes"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        server.settimeout(30)
        assert process.stdin is not None
        process.stdin.write(orders)
        process.stdin.close()
        connection, _ = server.accept()
        connection.settimeout(30)
        told = next(frame for frame in frames(connection) if frame["op"] == "state")
        connection.close()
        assert process.stderr is not None
        said = process.stderr.read().decode()

    assert 4 == process.wait(30)
    assert said.startswith("wonted: ") and 1 == said.count("\n"), said
    assert not told["probes"]["exec"]["attached"] and told["probes"]["exec"]["error"] in said


def frames(connection: socket.socket) -> "list[dict[str, dict[str, dict[str, str]]]]":
    """Everything until a state has come."""
    buffer, found = b"", []
    while not found or found[-1]["op"] != "state":
        piece = connection.recv(1 << 16)
        assert piece, "the probe process hung up before it said why"
        buffer += piece
        while len(buffer) >= 4 and len(buffer) >= 4 + (size := struct.unpack("<I", buffer[:4])[0]):
            found.append(msgspec.msgpack.decode(buffer[4 : 4 + size]))
            buffer = buffer[4 + size :]
    return found


@pytest.mark.parametrize("line", [b"", b"{}\n", b"[1]\n", b'{"socket": 1}\n', b"\xff\n"])
def test_bad_settings_are_named(line: bytes) -> None:
    """Exit code 2 and a sentence, not a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "probes"], input=line, capture_output=True, cwd=ROOT, timeout=30, check=False
    )

    assert 2 == done.returncode
    assert b"expects its settings" in done.stderr and b"Traceback" not in done.stderr


def test_told_to_stop_it_sends_what_it_has(start_watch: Callable[..., Watch]) -> None:
    """Exit code 0, and the last program before the signal is there."""
    watch = start_watch(flush=30.0)
    mark = f"last-words-{os.getpid()}"

    subprocess.run(["/bin/true", mark], check=True)
    code = watch.stop()

    assert 0 == code
    assert [mark] == [e.process.argv[1] for e in watch.events if mark in e.process.argv and e.action == "exec"]


def test_it_dies_with_the_worker(tmp_path: Path) -> None:
    """However the worker went: nothing watches on without anybody to tell."""
    worker = (
        "import json, os, subprocess, sys, time\n"
        "orders = {'socket': sys.argv[1], 'settings': {}, 'self_pids': [os.getpid()]}\n"
        "p = subprocess.Popen([sys.executable, '-m', 'probes'], stdin=subprocess.PIPE)\n"
        "p.stdin.write(json.dumps(orders).encode() + b'\\n'); p.stdin.flush()\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    path = str(tmp_path / "none.sock")
    parent = subprocess.Popen([sys.executable, "-c", worker, path], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    probe = int(parent.stdout.readline())
    handle = os.pidfd_open(probe)

    parent.send_signal(signal.SIGKILL)
    parent.wait()
    ended, _, _ = select.select([handle], [], [], 30)
    if not ended:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)

    assert ended, "the probe process outlived its worker"


def resident_kb(watch: Watch) -> int:
    status = Path(f"/proc/{watch.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def test_it_is_small(watch: Watch) -> None:
    """At most 40 MB resident."""
    watch.settled()

    assert resident_kb(watch) < 40_000


def test_it_is_small_after_a_flood_too(start_watch: Callable[..., Watch], tmp_path: Path) -> None:
    """At most 40 MB resident once 30,000 different files were told: what a flood needed goes back."""
    watch = start_watch(new_per_second=1_000_000)
    watch.settled()
    code = "import os, sys\nfor i in range(30_000): os.close(os.open(f'{sys.argv[1]}/{i}', os.O_CREAT | os.O_RDONLY))"
    last = f"{tmp_path}/29999"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    watch._await(lambda: any(e.object == last for e in watch.events[-3_000:]), 60, "the last file")
    reports = len(watch.states)
    watch._await(lambda: len(watch.states) > reports + 1, 20, "two reports")

    assert resident_kb(watch) < 40_000
    watch.stop()


def test_it_holds_no_right_that_it_does_not_need_and_says_so(watch: Watch) -> None:
    """The kernel's word and its own are the same. Names of containers, from here on, are read with these rights."""
    watch.settled()
    held = rights.sets(watch.process.pid)
    told = watch.states[-1]["rights"]

    kept = rights.mask(rights.KEPT) | held["prm"] & rights.mask(["BPF"])  # which kernels before 5.19 ask for
    assert {"eff": kept, "prm": kept, "inh": 0, "amb": 0, "bnd": 0, "no_new_privs": 1} == held
    assert {"holds": rights.names(kept), "could_get": [], "no_new_privs": True} == told
