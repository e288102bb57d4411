"""A broker for the session; tests use an app id of their own."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.broker import Broker, Missing


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    folder = Path(tempfile.mkdtemp(prefix="wonted-kafka-"))
    broker = None
    try:
        try:
            broker = Broker(folder)
        except Missing as lack:
            pytest.skip(str(lack))
        broker.start()
        yield broker
    finally:
        if broker is not None:
            broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["embedded", "kafka"])
def stream(request: pytest.FixtureRequest) -> str:
    """The broker setting: everything that takes it holds on both."""
    return "embedded://" if request.param == "embedded" else request.getfixturevalue("kafka").url
