"""One set of probes for all tests of this folder, and one process that they watch."""

import os
from collections.abc import Iterator

import pytest

from probes.loader import Attached
from tests.kernel.watch import ALL, Actor, Watched, attach_alone


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid():
        pytest.skip("needs root: these tests load programs into the kernel")


@pytest.fixture(scope="session")
def actor(_root: None) -> Iterator[Actor]:
    actor = Actor()
    yield actor
    actor.close()


@pytest.fixture(scope="session")
def attached(actor: Actor) -> Iterator[Attached]:
    attached = attach_alone(ALL, 16 << 20, actor)
    yield attached
    attached.close()


@pytest.fixture
def watched(actor: Actor, attached: Attached) -> Watched:
    return Watched(actor, attached)


@pytest.fixture
def known(attached: Attached) -> Iterator[set[int]]:
    """Keys that this test puts into the kernel's set."""
    keys: set[int] = set()
    yield keys
    attached.counts.remove(keys)
