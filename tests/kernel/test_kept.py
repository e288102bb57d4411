"""Programs that an earlier start compiled: the same ones are attached, see the same, and no compiler is there."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from probes import bpf, loader
from probes.counts import Sizes
from probes.loader import attach
from tests.kernel.actor import call, in_child
from tests.kernel.watch import ALL, Actor, Watched, attach_alone

ONCE = """
    import json, os, sys, time
    from probes import loader
    answer, descriptors = loader.load(loader.NOTHING | {"families": sorted(loader.FAMILIES), "programs": sys.argv[1]})
    held = [open(f"/proc/self/fdinfo/{fd}").read() for fd in descriptors.values()]
    print(json.dumps({
        "bcc": "bcc" in sys.modules,
        "libraries": sorted({n for n in ("libbcc", "LLVM", "libclang") if n in open("/proc/self/maps").read()}),
        "programs": sum("prog_id:" in text for text in held),
        "probes": answer["probes"],
        "notes": answer["notes"],
    }))
"""


def loaded(folder: Path) -> dict[str, Any]:
    """What one start found, in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(loader.ROOT)}
    words = [sys.executable, "-c", textwrap.dedent(ONCE), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert 0 == done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder after the first start, and that start."""
    folder = tmp_path_factory.mktemp("kept") / "programs"
    return folder, loaded(folder)


@pytest.fixture
def folder(first: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which `attach` will use."""
    copy = tmp_path / "programs"
    shutil.copytree(first[0], copy)
    monkeypatch.setenv(loader.PROGRAMS, str(copy))
    return copy


def file_in(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_the_second_start_compiles_nothing_and_attaches_the_same(first: tuple[Path, dict[str, Any]]) -> None:
    """No bcc, no LLVM in its memory."""
    before = first[1]
    again = loaded(first[0])

    assert (True, ["LLVM", "libbcc"]) == (before["bcc"], [n for n in before["libraries"] if n != "libclang"])
    assert (False, []) == (again["bcc"], again["libraries"])
    assert [] == before["notes"] == again["notes"]
    assert before["probes"] == again["probes"]
    assert len(loader.TRACEPOINTS) + len(loader.TRAFFIC) == before["programs"] == again["programs"]


def test_a_damaged_file_is_said_compiled_anew_and_replaced(
    folder: Path, first: tuple[Path, dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    file = file_in(folder)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)

    attached = attach(ALL, [], 4096)
    attached.close()
    next_start = loaded(folder)

    assert f"wonted: {file} is damaged; compiling instead\n" == capfd.readouterr().err
    assert first[1]["probes"] == attached.probes == next_start["probes"]
    assert (False, []) == (next_start["bcc"], next_start["notes"])


@pytest.fixture
def fresh() -> Iterator[Actor]:
    actor = Actor()
    yield actor
    actor.close()


def some_of_all(folder: str) -> list[int]:
    made = os.open(folder + "/made", os.O_CREAT | os.O_WRONLY)
    call(42, 999, b"\2\0\0\x50" + bytes(12), 16)
    call(106, 0)
    in_child(lambda: os.rename(folder + "/made", folder + "/moved"))
    os.unlink(folder + "/moved")
    os.close(made)
    return [made >= 0]


def test_the_known_workload_is_seen_as_by_programs_that_were_just_compiled(
    folder: Path, fresh: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, place = [], tmp_path / "work"
    place.mkdir()
    for kept in (folder, tmp_path / "new"):
        monkeypatch.setenv(loader.PROGRAMS, str(kept))
        attached = attach_alone(ALL, 4 << 20, fresh)
        _, records = Watched(fresh, attached).run(some_of_all, str(place))
        seen.append([(r.type, r.action, r.ret if r.action != "fork" else 0, r.path, r.path2) for r in records])
        attached.close()

    assert (1, 1) == tuple(len(list(kept.iterdir())) for kept in (folder, tmp_path / "new"))
    assert seen[0] == seen[1]
    assert {"create", "connect", "setgid", "fork", "rename", "exit", "unlink"} <= {row[1] for row in seen[0]}


def test_settings_and_secrets_compile_nothing_anew_and_are_not_in_the_file(folder: Path) -> None:
    before, secret = file_in(folder).read_bytes(), loader.Secret.new()
    attached = attach({"file"}, [], 1 << 16, Sizes(slots=7, known=99), secret)
    shapes = {name: bpf.shape_of(fd).entries for name, fd in attached.counts._fds.items()}
    attached.close()

    assert before == file_in(folder).read_bytes()
    assert not any(word.to_bytes(8, order) in before for word in secret for order in ("little", "big"))
    cpus = bpf.possible_cpus()
    expected = {"slots": 7, "free_slots": 7, "sequences": 7, "buckets": 14, "tallies": 7 * cpus, "known": 99}
    assert expected == {name: shapes[name] for name in expected}


def test_every_constant_that_is_put_in_later_has_its_places(folder: Path) -> None:
    """And no number that stands for one is left: a compiler that reckoned with it would leave another."""
    btf, before = loader.Btf.of_kernel(), file_in(folder).read_bytes()
    kept = loader.compiled(loader.program(btf, loader.typed(btf) is not None), str(folder), notes := [])
    waiting = {name for program in kept.programs for _, name in program.held}

    assert ([], before) == (notes, file_in(folder).read_bytes())
    assert set(loader.HELD) == waiting
    assert not any((0x776F6E74).to_bytes(4, "little") in program.code for program in kept.programs)
