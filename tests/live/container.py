"""The mix in a Docker container, and the holes through which acts come in."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.demo.network import die_with_parent
from tests.dockerd import daemon
from tests.live import image
from tests.live.acts import Act
from tests.live.names import GATEWAY

IMAGE, NAME = "wonted-live/mix:1", f"live-mix-{secrets.token_hex(2)}"
HEALTH = ("--health-cmd", "curl -fs http://127.0.0.1:8080/health >/dev/null", "--health-interval", "10s")


@contextmanager
def docker() -> Iterator[list[str]]:
    """The command line of a Docker daemon of our own that has the image."""
    with daemon(("nice", "-n", "5")) as host:
        command = ["docker", "-H", host]
        loading = subprocess.Popen([*command, "import", "-", IMAGE], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert loading.stdin is not None
        with loading.stdin as pipe, tempfile.TemporaryDirectory() as folder:
            image.write(pipe, Path(folder))
        if loading.wait(300):
            raise RuntimeError("docker import failed (above)")
        yield command


class Mix:
    """The running container with its town outside."""

    def __init__(self, docker: list[str]) -> None:
        self.docker = docker
        words = ["run", "-d", "--network", "none", "--dns", GATEWAY, "--name", NAME, "--hostname", "mix", *HEALTH]
        self._call(*words, IMAGE, "/bin/sh", "/entry.sh")
        self.pid = int(self._call("inspect", "-f", "{{.State.Pid}}", NAME))
        self.town = subprocess.Popen(
            ["nice", "-n", "5", sys.executable, "-m", "tests.live.town", f"/proc/{self.pid}/ns/net"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self._answer()

    def _call(self, *words: str) -> str:
        done = subprocess.run([*self.docker, *words], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(words[:2])}: {done.stderr.strip()}")
        return done.stdout.strip()

    def _answer(self) -> dict[str, Any]:
        assert self.town.stdout is not None
        line = self.town.stdout.readline()
        if not line:
            raise RuntimeError("the town ended (above)")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def say(self, **message: Any) -> dict[str, Any]:
        assert self.town.stdin is not None
        self.town.stdin.write(json.dumps(message) + "\n")
        self.town.stdin.flush()
        return self._answer()

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.pid}/root")

    def job(self, line: str) -> None:
        """Into the queue, from outside: no process of the mix writes it."""
        queue = os.open(self.root / "run/jobs", os.O_WRONLY)
        try:
            os.write(queue, line.encode() + b"\n")
        finally:
            os.close(queue)

    def do(self, act: Act) -> str:
        """Have it done; what came back, where something does."""
        if act.put:
            source, target = (self.root / path[1:] for path in act.put)
            target.write_bytes(source.resolve().read_bytes())
            target.chmod(0o755)
        if act.by == "shell":
            self.job(act.do)
            return ""
        if act.by == "worker":
            answer = self.say(ask="/debug", method="POST", body=act.do)
        else:
            method, path = act.do.split(" ", 1)
            answer = self.say(ask=path, method=method, body="x" if method == "PUT" else None)
        return f"{answer['status']} {answer['body']}"

    def log(self) -> str:
        done = subprocess.run([*self.docker, "logs", NAME], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def close(self) -> None:
        self.town.kill()
        self.town.wait()
        subprocess.run([*self.docker, "rm", "-f", "-v", NAME], capture_output=True, timeout=60, check=False)
