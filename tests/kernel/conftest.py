"""One set of probes for all tests of this folder, and one process that they watch."""

import os
from collections.abc import Iterator

import pytest

from probes.loader import Attached, attach
from tests.kernel.watch import ALL, Actor, Watched


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
    attached = attach(ALL, [], 16 << 20)
    yield attached
    attached.close()


@pytest.fixture
def watched(actor: Actor, attached: Attached) -> Watched:
    return Watched(actor, attached)
