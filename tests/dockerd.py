"""A Docker daemon of our own: nothing of this machine's is used, and nothing is left."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.demo.network import die_with_parent
from pipeline.demo.service import Lines


@contextmanager
def daemon(before: Sequence[str] = (), bridge: bool = False) -> Iterator[str]:
    """Where it listens, for `docker -H`. `before`: words before its command, as `nice -n 5`. `bridge`: containers have
    Docker's own network; else none.

    Raises pipeline.demo.service.Silent, with the daemon's last lines, where it does not start within a minute.
    """
    base = Path(tempfile.mkdtemp(prefix="wonted-docker-"))
    host = f"unix://{base}/docker.sock"
    folders = ("--data-root", f"{base}/data", "--exec-root", f"{base}/exec", "--pidfile", f"{base}/docker.pid")
    process = subprocess.Popen(
        [*before, "dockerd", *folders, "-H", host, *(() if bridge else ("--bridge=none", "--iptables=false"))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: die_with_parent(15),
    )
    assert process.stderr is not None
    lines = Lines(process.stderr, "dockerd")
    try:
        lines.wait(lambda line: "API listen on" in line.text, 60, "start of dockerd")
        yield host
    finally:
        left = subprocess.run(["docker", "-H", host, "ps", "-aq"], capture_output=True, text=True, timeout=60)
        if ids := left.stdout.split():
            subprocess.run(["docker", "-H", host, "rm", "-f", "-v", *ids], capture_output=True, timeout=60)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if (point := line.split()[4]).startswith(str(base)):
                subprocess.run(["umount", "-l", point], capture_output=True)
        shutil.rmtree(base, ignore_errors=True)
