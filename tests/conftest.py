"""For every test: quick areas run first, and with WONTED_REQUIRE_ALL=1 a test that would be skipped fails instead."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from probes.loader import PROGRAMS

os.environ.setdefault(PROGRAMS, str(Path(__file__).parents[1] / ".cache/programs"))
# one start compiles, of all tests and of all runs in this checkout

LAST = ("transport", "pipeline", "kernel", "containers", "kafka", "e2e", "benchmarks")
"""Areas that start processes, programs in the kernel, containers or brokers, quickest first; all others come before."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        parts = item.path.parts
        return next((1 + index for index, area in enumerate(LAST) if area in parts), 0)

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("WONTED_REQUIRE_ALL") == "1" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.longrepr = f"{item.nodeid} was not run, and WONTED_REQUIRE_ALL=1: {reason}"
    return report
