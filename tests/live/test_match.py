"""What counts as told in the live examination: the right word, at the right time, in the right workload."""

from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.demo.service import Line
from tests.live.acts import ACTS, Act
from tests.live.container import NAME
from tests.live.exam import Exam, Result, Seen
from tests.live.report import markdown

READ = Act("secret read", "worker", "open('/run/secrets/x')", ("/run/secrets/x",))


def line(at: float, what: str, **more: Any) -> Line:
    row = {
        "time": datetime.fromtimestamp(at, UTC).isoformat(),
        "workload": NAME,
        "what": what,
        "why": "never",
        "severity": "high",
        "object": None,
        "command": "python3 -u /app/worker.py",
        "exe": "/usr/bin/python3.11",
        "remote": None,
    }
    return Line(0, "", {**row, **more})


class Heard:
    """A service that has said these lines."""

    def __init__(self, *lines: Line) -> None:
        self.out = self
        self.all = list(lines)


def matched(*lines: Line) -> Seen:
    exam = Exam.__new__(Exam)
    exam.service = Heard(*lines)  # type: ignore[assignment]
    seen = Seen(READ, 100.0, 105.0)
    exam.match([seen], 0)
    return seen


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (line(101, "python read /run/secrets/x in the mix"), True),
        (line(101, "python read something", object="/run/secrets/x"), True),
        (line(101, "python read /run/secrets/y in the mix"), False),
        (line(99, "python read /run/secrets/x in the mix"), False),
        (line(105.5, "python read /run/secrets/x in the mix"), False),
        (line(101, "python read /run/secrets/x in the mix", workload="another"), False),
    ],
)
def test_an_act_is_told_by_its_word_within_its_time(said: Line, told: bool) -> None:
    """Neither an alert about something else nor one of another moment or workload counts."""
    assert told == (matched(said).named is not None)


def test_an_alert_goes_before_the_finding_that_joined_it() -> None:
    """Both name the act; people see the alert."""
    seen = matched(line(101, "read /run/secrets/x", finding=True), line(101, "read /run/secrets/x", id="al_1"))

    assert seen.named is not None and "al_1" == seen.named.get("id")


def test_the_report_counts_alerts_and_not_their_findings() -> None:
    """One false alert, its finding beside it, and one of two acts told."""
    missed = Seen(READ._replace(name="missed"), 106.0, 110.0)
    false = [line(50, "find removed /data/x").object, line(50, "find removed /data/x", finding=True).object]
    seen = [matched(line(101, "/run/secrets/x")), missed]
    result = Result(
        {"learning": 60.0, "enforcing": 60.0, "acting": 10.0}, false, [], seen,
        {"mode": "forced", "events": 10, "known": 5}, 9, 0, {}, 0, 0,
    )  # fmt: skip

    text = markdown(result, {})

    assert "False alerts while enforcing: **1**" in text
    assert "Acts told with their name: **1 of 2**" in text
    assert "| missed | worker | **no** (0) | nothing |" in text


def test_most_acts_are_not_on_the_danger_list() -> None:
    """The examination is of what was never done here, not of a list."""
    assert len(ACTS) >= 60
    assert len([act for act in ACTS if not act.listed]) >= 0.5 * len(ACTS)
    assert len({act.name for act in ACTS}) == len(ACTS)
