"""`wonted demo`, as a newcomer runs it."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.demo.engines import Runc
from pipeline.demo.network import die_with_parent
from pipeline.demo.play import interruptible
from pipeline.demo.service import WONTED, Lines
from tests.e2e.conftest import until

LEARN_S = 25


def left(home: Path) -> set[str]:
    """What a demo whose temporary files are in `home` could leave behind; another one may be at work."""
    found = {str(path) for path in home.iterdir()}
    for state in Path("/run/runc").glob("shop-*/state.json"):
        if holds(state, home):
            found.add(str(state))
    for base in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        for group in (*base.glob("wonted-demo/*/"), *base.glob("shop-*/")):
            if not holds(group / "cgroup.procs", Path("\n")):
                found.add(f"{group}, empty")
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and any(holds(process / name, home) for name in ("cmdline", "environ", "mountinfo")):
            found.add(str(process))
    return found


def holds(file: Path, text: Path) -> bool:
    try:
        return os.fsencode(text) in file.read_bytes()
    except OSError:
        return False


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    before = left(tmp_path)
    yield tmp_path
    until(lambda: left(tmp_path) - before, lambda more: not more, 10)


def demo(home: Path, *options: str) -> tuple[subprocess.Popen[bytes], Lines]:
    process = subprocess.Popen(
        [*WONTED, "demo", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TMPDIR": str(home)},
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),
    )
    assert process.stdout is not None
    return process, Lines(process.stdout, "wonted demo")


@pytest.mark.parametrize("engine", ["plain", "runc"])
def test_the_demo_tells_each_step_and_leaves_nothing(engine: str, home: Path) -> None:
    if engine == "runc" and not Runc.found():
        pytest.skip("runc is not installed; apt-get install runc")

    process, lines = demo(home, "--engine", engine, "--learn", str(LEARN_S))
    code = process.wait(170)
    lines.join()

    text = "\n".join(line.text for line in lines.all)
    assert 0 == code, text
    assert "alerts on normal traffic: 0" in text and "every step was told" in text
    for word in ("id; uname -a", "/tmp/.x/kdevtmpfsi 0.5", "10.213.77.13", "/etc/shadow", "10.213.77.2"):
        assert word in text.partition("exactly as received")[2], f"{word} is not in a Slack message:\n{text}"


@pytest.mark.parametrize("at", ["s  wonted: ready", "s to go"])
def test_an_interrupted_demo_leaves_nothing(at: str, home: Path) -> None:
    process, lines = demo(home, "--engine", "plain", "--learn", "60")

    lines.wait(lambda line: at in line.text, 90, f'line with "{at}"')
    process.send_signal(signal.SIGINT)

    assert 130 == process.wait(60)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_python_drops_is_heard() -> None:
    """A signal may come while a destructor runs, or a hook of fork(): what its handler raises there goes nowhere."""

    class Deaf:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), interruptible():
        Deaf()
        threading.Event().wait(30)
        pytest.fail("the demo went on")
