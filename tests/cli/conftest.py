"""The program as people and scripts call it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.client import Client

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Stdout as JSON lines; fails where anything else is on it."""
        return [json.loads(line) for line in self.out.splitlines()]


def wonted(
    *args: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 60
) -> Result:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, args)],
        cwd=cwd or ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running worker without probes; its data folder."""
    data = tmp_path_factory.mktemp("data")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "--data", str(data), "run", "--no-probe"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("wonted: ready"):
            break
    else:
        pytest.fail("the service did not start:\n" + "".join(said))
    yield data
    with Client(data) as client:
        client.call("stop")
    assert process.wait(30) == 0
