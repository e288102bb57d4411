"""The probe is told what is usual: batched, in order, and only by its own worker."""

import asyncio
from typing import Any

from models.usual import Change
from pipeline.usual import Teller

HERE, THERE = ("here", "boot"), ("there", "boot")


def teller() -> tuple[Teller, list[dict[str, Any]]]:
    pushed: list[dict[str, Any]] = []

    async def push(message: dict[str, Any]) -> None:
        pushed.append(message)

    return Teller("here", push), pushed


def test_few_pushes_a_second_for_one_workload() -> None:
    """However many events were usual."""
    told, pushed = teller()

    told.take([Change("web", HERE, add=(1,)), Change("web", HERE, add=(2,))])
    asyncio.run(told.tell({}, now=10.0))
    told.take([Change("web", HERE, add=(3,))])
    asyncio.run(told.tell({}, now=10.1))
    early = list(pushed)
    asyncio.run(told.tell({}, now=11.0))

    assert [{"push": "usual", "workload": "web", "keys": [1, 2]}] == early
    assert [{"push": "usual", "workload": "web", "keys": [3]}] == pushed[1:]


def test_what_was_cleared_is_not_added_by_an_older_answer() -> None:
    """Clear, then remove, then add; what waited before the clearing is gone."""
    told, pushed = teller()

    told.take([Change("web", HERE, add=(1,)), Change("web", HERE, add=(2,), remove=(3,), clear=True)])
    asyncio.run(told.tell({}, now=10.0))

    assert [
        {"push": "unusual", "workload": "web"},
        {"push": "unusual", "workload": "web", "keys": [3]},
        {"push": "usual", "workload": "web", "keys": [2]},
    ] == pushed


def test_another_hosts_keys_are_not_pushed() -> None:
    """A key means something only on its own node."""
    told, pushed = teller()

    told.take([Change("web", THERE, add=(1,))])
    asyncio.run(told.tell({}, now=10.0))

    assert [] == pushed


def test_a_mode_is_pushed_when_it_changes_and_to_who_comes_late() -> None:
    """Learning is what a probe assumes."""
    told, pushed = teller()

    asyncio.run(told.tell({"web": True, "db": False}, now=10.0))
    asyncio.run(told.tell({"web": True, "db": False}, now=11.0))

    assert [{"push": "mode", "workload": "db", "learning": False}] == pushed == told.greeting()
