"""The arithmetic of `make bench`. What it measures is no test's business."""

import doctest
from pathlib import Path

from tests.benchmarks import cost, figures
from tests.benchmarks.common import Result
from tests.benchmarks.cost import Cost, Plan, Sample
from tests.benchmarks.figures import Spread, Table
from tests.benchmarks.loads import LOADS, Run
from tests.benchmarks.run import BEGIN, page, write
from tests.benchmarks.variants import VARIANTS

LOOP = next(load for load in LOADS if load.name == "getppid")
REAL = next(load for load in LOADS if load.name == "redis")


def measured(cpu_s: dict[str, list[float]]) -> Cost:
    """A million pieces of work in each sample; what is attached used a fifth of that time, and as much afterwards."""
    made = Cost(Plan([LOOP, REAL], [variant for variant in VARIANTS if variant.name in cpu_s]))
    for load in (LOOP, REAL):
        for variant, rounds in cpu_s.items():
            own = {"probe": 0.2} if variant == "enforcing" else {}
            made.samples[load.name][variant] = [
                Sample(Run(1_000_000, cpu, cpu), own, own, 1.0, 0.0, True) for cpu in rounds
            ]
    return made


def test_examples_in_docstrings_are_true() -> None:
    result = doctest.testmod(figures)

    assert result.attempted > 0
    assert result.failed == 0


def test_a_machine_that_slows_down_between_rounds_changes_no_ratio() -> None:
    assert figures.ratios([1.0, 2.0, 4.0], [1.5, 3.0, 6.0]) == Spread(1.5, 1.5, 1.5, 3)


def test_the_spread_is_the_lowest_and_the_highest_round() -> None:
    assert str(figures.extra([100, 100, 100], [190, 210, 200])) == "100.00 (90.00..110.00)"


def test_a_floor_that_noise_hid_gives_no_multiple() -> None:
    """An empty program that seems to make calls faster says that the machine was not quiet, not that Wonted is free."""
    assert figures.multiple([200, 200, 200], [300, 195, 190], [380, 380, 380]) is None


def test_tables_say_what_is_added_and_what_is_kept() -> None:
    tables = list(measured({"nothing": [0.2], "empty": [0.3], "enforcing": [0.4]}).tables())

    assert ["getppid", "200", "+100", "+200"] == list(tables[0].rows[0])
    assert ["getppid", "1.00", "1.50", "2.00"] == list(tables[1].rows[0])
    assert ["redis -P 1", "1.00", "0.67", "0.50", "5,000,000 requests/CPU-s"] == list(tables[2].rows[0])
    assert (["getppid", "20.0"], ["getppid", "40.0"]) == (list(tables[3].rows[0]), list(tables[4].rows[0]))


def test_goals_are_judged_by_the_median() -> None:
    made = measured({"nothing": [0.2, 0.2, 0.2], "empty": [0.3, 0.3, 0.3], "enforcing": [0.38, 0.36, 0.6]})

    results = {result.name: (round(result.value, 2), result.met) for result in made.goals()}

    assert results == {
        "getppid: extra cost in empty raw tracepoints": (1.8, True),
        "redis -P 1: work per CPU-second, enforcing": (0.53, False),
        "redis -P 1: the probe, enforcing": (20.0, False),
    }


def test_a_program_that_is_not_installed_leaves_its_lines_out_and_says_so() -> None:
    class Unknown:
        name, title, unit, needs, loop = "unknown", "an unknown load", "calls", ("no-such-program",), True

    said = list(cost.measure(Plan([Unknown()])))  # type: ignore[list-item]

    assert said == ["an unknown load is left out: no-such-program not installed"]


def test_what_fails_once_is_left_out_of_every_table_and_named() -> None:
    """Rounds are compared pair by pair: a load that has one sample less has no pairs."""
    made = measured({"nothing": [0.2], "enforcing": [0.4], "bpftrace": [0.5]})

    made.leave_out(REAL, RuntimeError("it did not start"))
    made.leave_out(VARIANTS[-1], RuntimeError("not permitted"))

    assert made.left_out == [
        "redis -P 1 is left out: it did not start",
        "bpftrace, counting the system calls by number is left out: not permitted",
    ]
    assert [["getppid", "200", "+200"]] == [list(row) for row in next(made.tables()).rows]
    assert ["getppid"] == list(made.samples)


def test_a_page_keeps_what_people_wrote_above_the_mark(tmp_path: Path) -> None:
    file = tmp_path / "cost.md"
    file.write_text(f"# How to read it\n\n{BEGIN}\nold figures\n")
    said = [Table("Price", ("", "ns"), [("a|b", "12")]), Result("cost", "redis", 0.97, "x", "0.96..0.98"), "a remark"]

    write(file, page({"date": "today", "kernel": "6.1"}, {"cost": (61.0, said)}, "make bench"))

    text = file.read_text()
    assert text.startswith(f"# How to read it\n\n{BEGIN}\n")
    assert "old figures" not in text
    assert "| a\\|b | 12 |" in text and "| redis | 0.97 | x |  | 0.96..0.98 |  |" in text and "a remark." in text
