"""Workers that are ended, and folders that are removed, whatever happens."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.worker import Worker

Start = Callable[..., Worker]


@pytest.fixture
def data() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wonted-pipeline-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def idle() -> Iterator[Worker]:
    """One worker for all tests that change nothing in it."""
    folder = Path(tempfile.mkdtemp(prefix="wonted-pipeline-"))
    worker = Worker(folder)
    yield worker
    worker.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(data: Path) -> Iterator[Start]:
    """Start a worker on this test's folder and wait until it is ready."""
    workers: list[Worker] = []

    def begin(**settings: Any) -> Worker:
        workers.append(Worker(data, **settings))
        return workers[-1]

    yield begin
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()
