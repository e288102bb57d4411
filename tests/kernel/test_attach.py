"""Attaching, and what is left when the holder goes: nothing."""

import contextlib
import ctypes
import os
import select
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from probes import bpf, loader, wire
from probes.btf import Btf, NoBtf
from probes.loader import CannotLoad, attach, check
from tests.kernel.actor import call, in_child
from tests.kernel.watch import ALL, Actor, Watched, attach_alone

HOLDER = """
    import sys
    from probes.loader import attach
    attached = attach({"file"}, [], 1 << 20)
    print("ready", flush=True)
    sys.stdin.read()
"""


def held(pid: int) -> set[int]:
    """Programs that a process keeps attached, by its descriptors."""
    found = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own
            words = [line.split() for line in info.read_text().splitlines()]
            found |= {int(word[1]) for word in words if word[0] == "prog_id:"}
    return found


def gone(programs: set[int], seconds: float = 10.0) -> bool:
    """The kernel frees programs a moment after their last holder: look again until it has."""
    poll = select.poll()
    for _ in range(int(seconds * 20)):
        if not programs & set(bpf.program_ids()):
            return True
        poll.poll(50)
    return False


def test_nothing_stays_attached_after_close() -> None:
    descriptors, before = set(os.listdir("/proc/self/fd")), held(os.getpid())
    attached = attach(ALL, [], 1 << 20)
    mine = held(os.getpid()) - before
    attached.close()

    assert len(loader.TRACEPOINTS) + len(loader.TRAFFIC) == len(mine)
    assert gone(mine)
    assert descriptors == set(os.listdir("/proc/self/fd"))


def test_nothing_stays_attached_after_kill_9() -> None:
    pipe, env = subprocess.PIPE, os.environ | {"PYTHONPATH": str(loader.ROOT)}
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(HOLDER)], stdin=pipe, stdout=pipe, env=env)
    assert holder.stdout and holder.stdin
    assert b"ready\n" == holder.stdout.readline()
    mine = held(holder.pid)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()

    assert len(loader.TRACEPOINTS) == len(mine)
    assert gone(mine)


def test_every_probe_says_that_it_is_attached() -> None:
    attached = attach(ALL, [], 1 << 20)
    try:
        expected = {*loader.MANDATORY, *loader.FAMILIES, "traffic", "io_uring"}
        assert {name: {"attached": True, "error": None} for name in expected} == attached.probes
    finally:
        attached.close()


def one_of_each(folder: str) -> int:
    os.close(os.open(folder + "/f", os.O_CREAT))
    call(42, 999, b"\2\0\0\x50" + bytes(12), 16)
    call(106, 0)
    return 0


def test_a_family_that_is_not_wanted_is_not_told(tmp_path: Path) -> None:
    actor = Actor()
    attached = attach_alone({"privilege"}, 1 << 20, actor)
    try:
        _, records = Watched(actor, attached).run(one_of_each, str(tmp_path))

        assert ["setgid"] == [r.action for r in records if r.type == wire.CALL]
        assert {"exec", "fork", "exit", "cgroup", "privilege", "io_uring"} == set(attached.probes)
    finally:
        attached.close()
        actor.close()


def test_our_own_processes_are_not_told_nor_what_they_start() -> None:
    attached = attach(ALL, [], 4 << 20)
    try:
        subprocess.run(["/bin/sh", "-c", "/bin/true; /bin/true"], check=True)
        mine = {os.getpid()}
        records = attached.reader.drain()

        assert [] == [r for r in records if r.pid in mine or r.ppid in mine]
    finally:
        attached.close()


def test_a_process_can_be_left_out_later(tmp_path: Path) -> None:
    actor = Actor()
    attached = attach_alone(ALL, 4 << 20, actor)
    try:
        watched = Watched(actor, attached)
        assert watched.run(one_of_each, str(tmp_path))[1]
        attached.add_self(actor.pid)

        assert [] == watched.run(one_of_each, str(tmp_path))[1]
    finally:
        attached.close()
        actor.close()


def ended() -> int:
    return in_child(lambda: None)


def reborn(number: int) -> int:
    """A child with this very process id, by clone3's set_tid."""
    wanted = ctypes.create_string_buffer(struct.pack("i", number), 4)
    pid = call(435, struct.pack("11Q", 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(wanted), 1, 0), 88)
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_a_process_id_of_ours_that_comes_again_is_watched() -> None:
    """It was noted when its process had gone already: nobody took it back."""
    actor = Actor()
    attached = attach_alone(ALL, 4 << 20, actor)
    try:
        number = actor.do(ended)
        attached.add_self(number)
        pid, records = Watched(actor, attached).run(reborn, number)

        assert number == pid
        assert ["fork", "exit"] == [r.action for r in records if pid in (r.pid, r.child)]
    finally:
        attached.close()
        actor.close()


def test_a_ring_that_is_no_power_of_two_is_made_one() -> None:
    assert [4096, 4096, 8192, 1 << 20, 16 << 20] == [
        loader.ring_size(n) for n in (1, 4096, 4097, 1_000_000, (8 << 20) + 1)
    ]


def test_what_the_compiler_says_becomes_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotLoad, match=r"^cannot load probes: .*error: .*"):
        loader._compile("int broken(void *ctx) { return nonsense; }")


def test_a_kernel_without_a_field_is_refused_by_name() -> None:
    with pytest.raises(NoBtf, match=r"no task_struct\.nonsense"):
        Btf.of_kernel().offset("task_struct.nonsense")
    with pytest.raises(NoBtf, match="no struct nonsense"):
        Btf.of_kernel().offset("nonsense.field")
    with pytest.raises(NoBtf, match="cannot read"):
        Btf.of_kernel(Path("/nonexistent"))


def test_the_checks_for_doctor_pass_here_and_leave_nothing() -> None:
    facts = check()

    assert ["bcc", "headers", "btf", "load"] == [fact.check for fact in facts]
    assert [] == [fact for fact in facts if not fact.ok or fact.fix]


def loaded_without(tracepoint: str) -> str:
    """What a kernel without this tracepoint would answer; in a process of its own."""
    code = f"""
        import os
        import probes.loader as loader
        renamed = [(p, t.replace("{tracepoint}", "no_such"), f) for p, t, f in loader.TRACEPOINTS]
        loader.TRACEPOINTS = tuple(renamed)
        try:
            kept = os.environ.get(loader.PROGRAMS)
            answer, _ = loader.load({{**loader.NOTHING, "families": ["file"], "programs": kept}})
            print({{name: probe["error"] for name, probe in answer["probes"].items()}})
        except loader.CannotLoad as error:
            print(error)
    """
    env = os.environ | {"PYTHONPATH": str(loader.ROOT)}
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=env)
    return run.stdout.strip() + run.stderr


def test_a_kernel_without_a_mandatory_tracepoint_is_refused_by_name() -> None:
    answer = loaded_without("cgroup_mkdir")

    assert answer.startswith("cannot load probes: this kernel has no tracepoint no_such")
    assert 1 == len(answer.splitlines())


def test_a_kernel_without_another_one_names_what_is_missing() -> None:
    answer = loaded_without("sys_exit")

    assert "'exec': None" in answer
    assert "'file': 'this kernel has no tracepoint no_such" in answer


@pytest.mark.parametrize("typed", [True, False])
def test_a_kernel_that_takes_no_typed_programs_gets_raw_ones(typed: bool) -> None:
    """The verifier takes both, and the programs behind them; older kernels know only raw ones."""
    code = f"""
        import os, re
        import probes.loader as loader
        from tests.benchmarks.kernel import watching
        if not {typed}:
            loader.typed = lambda btf: None
        kept = os.environ.get(loader.PROGRAMS)
        answer, held = loader.load({{**loader.NOTHING, "families": [*loader.FAMILIES], "programs": kept}})
        assert all(probe["attached"] for probe in answer["probes"].values()), answer
        held = open(f"/proc/self/fdinfo/{{held['sys_exit']}}").read()
        print(watching()[int(re.search("prog_id:(.*)", held)[1])])
    """
    env = os.environ | {"PYTHONPATH": str(loader.ROOT)}
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=env)
    takes = loader.typed(Btf.of_kernel()) is not None

    assert 0 == run.returncode, run.stderr
    assert ("tracing" if typed and takes else "raw tracepoint") == run.stdout.strip()


def test_a_kernel_without_io_urings_tracepoint_names_it() -> None:
    answer = loaded_without("io_uring_submit_req")

    assert "'file': None" in answer
    assert "'io_uring': 'this kernel has no tracepoint no_such" in answer
