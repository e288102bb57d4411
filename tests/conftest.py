"""For every test: quick areas run first, what shares the machine runs one after the other, and with
WONTED_REQUIRE_ALL=1 a test that would be skipped fails instead."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from probes.loader import PROGRAMS

HERE = Path(__file__).parent
os.environ.setdefault(PROGRAMS, str(HERE.parent / ".cache/programs"))
# one start compiles, of all tests and of all runs in this checkout

LAST = ("transport", "pipeline", "kernel", "containers", "kafka", "e2e", "benchmarks")
"""Areas that start processes, programs in the kernel, containers or brokers, quickest first; all others come before."""
QUEUES = {"kernel": "kernel", "containers": "kernel", "e2e": "kernel", "benchmarks": "kernel", "kafka": "kafka"}
"""Areas of which one test runs at a time under `pytest -n`: those of one name are one queue. Else a file is."""

LONG = ("kafka",)
"""Queues of few tests that take minutes: begun early, for xdist begins with those of most tests."""


def area(path: str) -> str:
    return next((part for part in Path(path).parts if part != HERE.name), "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = area(str(item.path.relative_to(HERE)))
        return 1 + LAST.index(name) if name in LAST else 0

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Queues(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return QUEUES.get(area(path), path)

        def schedule(self) -> None:
            super().schedule()
            for name in LONG:
                if name in self.workqueue:
                    self.workqueue.move_to_end(name, last=False)

    return Queues(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("WONTED_REQUIRE_ALL") == "1" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.longrepr = f"{item.nodeid} was not run, and WONTED_REQUIRE_ALL=1: {reason}"
    return report
