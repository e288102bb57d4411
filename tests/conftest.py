"""For every test: quick areas run first, what shares the machine runs one after the other, and with
WONTED_REQUIRE_ALL=1 a test that would be skipped fails instead."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from probes.loader import PROGRAMS

HERE = Path(__file__).parent
os.environ.setdefault(PROGRAMS, str(HERE.parent / ".cache/programs"))
# one start compiles, of all tests and of all runs in this checkout

LAST = ("transport", "pipeline", "kernel", "containers", "kafka", "e2e", "benchmarks")
"""Areas that start processes, programs in the kernel, containers or brokers, quickest first; all others come before."""
ALONE = {"kernel": "kernel", "containers": "kernel", "e2e": "kernel", "benchmarks": "kernel", "kafka": "kafka"}
"""Areas of which one test runs at a time under `pytest -n`: those of one name are one queue."""


@pytest.hookimpl(tryfirst=True)  # xdist looks for the groups in a hook of its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def area(item: pytest.Item) -> str:
        return item.path.relative_to(HERE).parts[0]

    items.sort(key=lambda item: 1 + LAST.index(area(item)) if area(item) in LAST else 0)
    for item in items:
        if area(item) in ALONE:
            item.add_marker(pytest.mark.xdist_group(ALONE[area(item)]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("WONTED_REQUIRE_ALL") == "1" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.longrepr = f"{item.nodeid} was not run, and WONTED_REQUIRE_ALL=1: {reason}"
    return report
