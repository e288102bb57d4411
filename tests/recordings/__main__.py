"""`make recordings`: runs the services of services.py under a real `wonted run`, attacks each, and writes one recording
of each to library/, without what the rest of the machine did. Needs root and the services' programs; three minutes.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from zlib import crc32

import msgspec

from pipeline.demo import engines
from pipeline.demo.network import CLONE_NEWNET, inside, setns, up
from pipeline.demo.service import WONTED, Service
from probes.batch import decode, encode
from probes.event import Batch, Event
from probes.replay import HEAD, MAGIC, read
from tests.recordings import services
from tests.recordings.services import ATTACKER, SERVICES

LIBRARY = Path(__file__).with_name("library")
LEARN_S, NORMAL_S, ATTACK_S = 75, 30, 12
PATH = ":".join(["/usr/sbin:/usr/bin:/sbin:/bin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))])
PAUSE = 0.7
"""Between two rounds of a service's clients."""
WEB = """
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"#!/bin/sh\\nid\\n")
    def log_message(self, *words):
        pass
http.server.HTTPServer(("%s", %d), Page).serve_forever()
"""


class Box(engines.Plain):
    """One service in namespaces of its own."""

    def __init__(self, base: Path, service: services.Service) -> None:
        super().__init__(base, service.name)
        self.service = service
        self.environment = engines.ENVIRONMENT | {"PATH": PATH}
        self.first = 0

    def furnish(self, root: Path) -> None:
        engines.make_root(root)
        shutil.rmtree(root / "srv/shop")
        shutil.rmtree(root / "var/lib/shop")
        for name in ("data", "var/tmp", "var/log", "run/postgresql"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for name in ("tmp", "var/tmp"):
            (root / name).chmod(0o1777)
        for path in ("/etc/alternatives", "/etc/postgresql-common"):
            if Path(path).is_dir():
                shutil.copytree(path, root / path[1:], symlinks=True, dirs_exist_ok=True)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:999:999::/data:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\napp:x:999:\nnogroup:x:65534:\n")
        for path, text in self.service.files.items():
            file = root / path[1:]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755 if text.startswith("#!") else 0o644)
        for folder, owner in self.service.owners.items():
            os.chown(root / folder[1:], owner, owner)


def enter(pid: int) -> None:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    setns(descriptor, CLONE_NEWNET)
    os.close(descriptor)


def outside(pid: int, script: str, **more: object) -> "subprocess.Popen[bytes]":
    """A shell script of somebody else, in the service's network."""
    return subprocess.Popen(
        ["/bin/sh", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=lambda: enter(pid)
    )


def connect(pid: int) -> None:
    """The loopback, and the attacker's address on it."""
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    with inside(descriptor) as control:
        up(control, "lo")
        up(control, "lo:1", ATTACKER)
    os.close(descriptor)


def one_workload(source: Path, known_as: str, name: str) -> Iterator[bytes]:
    """What of a recording belongs to one workload, under the service's name; nothing that tells of the machine."""
    seqs: dict[int, int] = {}
    for payload in read(source):
        batch = decode(payload)
        mine = [renamed(event, name) for event in batch.events if known_as in event.workload]
        windows = [msgspec.structs.replace(w, workload=name) for w in batch.windows if known_as in w.workload]
        repeats = (
            {name: counts} if (counts := next((c for of, c in batch.repeats.items() if known_as in of), {})) else {}
        )
        if not (mine or windows or repeats):
            continue
        seq = seqs[batch.partition] = seqs.get(batch.partition, -1) + 1
        yield encode(
            Batch("node", "boot", "run", seq, batch.partition, batch.time, mine, windows, batch.lost, {}, repeats)
        )


def renamed(event: Event, name: str) -> Event:
    container = event.container
    if container is not None:
        container = msgspec.structs.replace(container, name=name, ip=(), labels={})
    return msgspec.structs.replace(event, workload=name, container=container)


def main() -> None:
    missing = [need for service in SERVICES for need in service.needs if not shutil.which(need, path=PATH)]
    if os.geteuid():
        sys.exit("recordings: needs root, for probes and namespaces")
    if missing:
        packages = "nginx-light redis-server redis-tools postgresql curl gcc make git"
        sys.exit(f"recordings: not found: {' '.join(missing)}; apt-get install {packages}")
    LIBRARY.mkdir(exist_ok=True)
    with ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="wonted-recordings-"))
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        wonted = Service(base / "data", {"learn.max": f"{LEARN_S}s"}, findings=False).start()
        stack.callback(wonted.stop)
        wonted.ready()
        boxes: dict[str, Box] = {}
        helpers: list[subprocess.Popen[bytes]] = []
        for service in SERVICES:
            folder = base / service.name
            folder.mkdir()
            box = boxes[service.name] = Box(folder, service)
            stack.callback(box.stop)
            box.command = ("/bin/sh", "-c", service.entry)
            pid = box.start(None)
            box.first = pid
            connect(pid)
            helpers += [
                subprocess.Popen([sys.executable, "-c", WEB % (ATTACKER, port)], preexec_fn=lambda pid=pid: enter(pid))
                for port in (80, 443)
            ]
        stack.callback(lambda: [helper.kill() for helper in helpers])
        over = threading.Event()

        def work(box: Box) -> None:
            while not over.wait(PAUSE):
                if box.service.clients:
                    outside(box.first, box.service.clients).wait()

        threads = [threading.Thread(target=work, args=(box,), daemon=True) for box in boxes.values()]
        for thread in threads:
            thread.start()
        time.sleep(LEARN_S + NORMAL_S)
        begun = time.time_ns()
        for box in boxes.values():
            outside(box.first, box.service.attack.replace("{root}", str(box.base / "root"))).wait()
        time.sleep(ATTACK_S)
        over.set()
        for thread in threads:
            thread.join()
        whole = base / "all.wonted"
        subprocess.run([*WONTED, "--data", str(base / "data"), "record", str(whole), "--since", "1h"], check=True)
        facts = {}
        for name, box in boxes.items():
            with gzip.GzipFile(LIBRARY / f"{name}.wonted.gz", "wb", mtime=0) as out:
                out.write(MAGIC)
                for payload in one_workload(whole, box.known_as, name):
                    out.write(HEAD.pack(len(payload), crc32(payload)) + payload)
            facts[name] = {"learn_s": LEARN_S, "attack": begun, "tells": list(box.service.tells)}
        (LIBRARY / "library.json").write_text(json.dumps(facts, indent=1) + "\n")
    for file in sorted(LIBRARY.glob("*.gz")):
        print(f"{file.stat().st_size:>9,}  {file.name}")


if __name__ == "__main__":
    main()
