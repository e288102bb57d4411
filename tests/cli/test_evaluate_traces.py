"""evaluate traces: labelled sequences of system calls, from a folder to figures."""

from pathlib import Path

import pytest

from tests.cli.conftest import wonted
from tests.models.traces import unpack

USUAL = "2 0 0 3 9 257 5 3 " * 20
STRANGE = "41 42 33 33 33 59 101 101 " * 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten usual traces to learn, ten to score, and two attacks."""
    for name in ("train", "validation"):
        (tmp_path / name).mkdir()
        for i in range(10):
            (tmp_path / name / f"{i}.txt").write_text(USUAL + "1 " * i + "\n")
    for name in ("Shell_1", "Shell_2"):
        (tmp_path / "attack" / name / "deep").mkdir(parents=True)
        (tmp_path / "attack" / name / "deep" / "a.txt").write_text(STRANGE)
    return tmp_path


def test_json_is_one_object_with_the_fields_that_scripts_read(folder: Path) -> None:
    result = wonted("evaluate", "traces", folder, "--json")

    assert result.code == 0, result.err
    found = result.objects[-1]
    assert {"auc": 1.0, "normal": 10, "attacks": 2, "train": 10} == {
        name: found[name] for name in ("auc", "normal", "attacks", "train")
    }
    assert {"0.001": 1.0, "0.01": 1.0, "0.05": 1.0, "0.15": 1.0} == found["detection"]
    assert found["us_per_call"] > 0
    assert 0 < found["state_bytes"] <= 32 * 1024
    assert {"Shell_1", "Shell_2"} == set(found["classes"])
    assert {"auc", "detection", "traces"} == set(found["classes"]["Shell_1"])


def test_a_person_gets_a_table_and_what_it_was_made_of(folder: Path) -> None:
    result = wonted("evaluate", "traces", folder)

    assert result.code == 0
    assert ["attack", "Shell_1", "Shell_2", "all"] == [line.split()[0] for line in result.out.splitlines()]
    assert "10 traces learned, 10 normal and 2 attacks scored" in result.err


def test_attacks_may_lie_beside_the_folders(folder: Path) -> None:
    (folder / "attack" / "loose.txt").write_text(STRANGE)

    (found,) = wonted("evaluate", "traces", folder, "--json").objects

    assert {"Shell_1", "Shell_2", "attack"} == set(found["classes"])


def test_a_recorded_host_gives_the_same_figures_each_time(tmp_path: Path) -> None:
    """All but the time it took."""
    folder = unpack(tmp_path)

    first, second = (wonted("evaluate", "traces", folder, "--json").objects[-1] for _ in range(2))

    assert 8 == len(first["classes"])
    assert first["auc"] > 0.87 and first["detection"]["0.15"] > 0.7
    assert {**first, "us_per_call": 0} == {**second, "us_per_call": 0}


def break_train(folder: Path) -> str:
    (folder / "train" / "3.txt").write_text("1 2 3\n4 five 6\n")
    return "3.txt:2: expected a system call number, found 'five'"


def break_sign(folder: Path) -> str:
    (folder / "validation" / "3.txt").write_text("1 -2 3\n")
    return "3.txt:1: expected a system call number, found '-2'"


def break_size(folder: Path) -> str:
    (folder / "validation" / "3.txt").write_text("1 2\n\n99999999999999999999 3\n")
    return "3.txt:3: expected a system call number, found '99999999999999999999'"


def break_empty_file(folder: Path) -> str:
    (folder / "attack" / "Shell_1" / "deep" / "a.txt").write_text(" \n")
    return "a.txt: expected system call numbers separated by blanks, found nothing"


def break_empty_folder(folder: Path) -> str:
    for path in (folder / "validation").iterdir():
        path.unlink()
    return "validation: expected at least one file of system call numbers, found none"


def break_missing_folder(folder: Path) -> str:
    (folder / "attack").rename(folder / "attacks")
    return "attack: no such folder; expected train/, validation/ and attack/<class>/"


def break_binary(folder: Path) -> str:
    (folder / "train" / "3.txt").write_bytes(b"1 2\n\x1b[31m\xff\x00 3\n")
    return "3.txt:2: expected a system call number, found"


@pytest.mark.parametrize(
    "broken",
    [break_train, break_sign, break_size, break_empty_file, break_empty_folder, break_missing_folder, break_binary],
)
def test_what_is_no_trace_is_an_error_that_says_where(folder: Path, broken) -> None:
    words = broken(folder)

    result = wonted("evaluate", "traces", folder, "--json")

    assert (1, "") == (result.code, result.out)
    assert words in result.err
    assert "Traceback" not in result.err and "\x1b" not in result.err


def test_a_hostile_name_reaches_no_terminal(folder: Path) -> None:
    (folder / "attack" / "\x1b[2Jx\nall").mkdir()
    (folder / "attack" / "\x1b[2Jx\nall" / "a.txt").write_text(STRANGE)

    table = wonted("evaluate", "traces", folder)
    (folder / "attack" / "\x1b[2Jx\nall" / "a.txt").write_text("x")
    error = wonted("evaluate", "traces", folder)

    assert (0, 1) == (table.code, error.code)
    assert all("\x1b" not in text for text in (table.out, table.err, error.out, error.err))
    assert 5 == len(table.out.splitlines())


def test_a_name_that_is_not_utf8_is_shown_all_the_same(folder: Path) -> None:
    odd = folder / "attack" / "Shell_\udcff"
    odd.mkdir()
    (odd / "a.txt").write_text(STRANGE)

    assert 0 == wonted("evaluate", "traces", folder).code
    assert r"Shell_\xff" in wonted("evaluate", "traces", folder, "--json").objects[-1]["classes"]


def test_usage_errors_are_told_as_such(tmp_path: Path) -> None:
    assert 2 == wonted("evaluate", "traces").code
    assert 2 == wonted("evaluate", "trace", tmp_path).code
    assert 1 == wonted("evaluate", "traces", tmp_path / "nowhere").code
