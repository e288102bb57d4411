"""`wonted run`: the worker, and the probe process that it watches over.

Order of the start: the lock, the socket (so that the probe can connect at once), the probe process (it compiles while
the models are imported here), the app, the answers. Ready: the probes have reported, and the stream consumes.
Order of the end: the probe (it sends what it has), the socket, what is in the log is applied, snapshots, the app.
"""

import asyncio
import ctypes
import fcntl
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from config.schema import Settings
from pipeline import metrics
from pipeline.client import SOCKET
from pipeline.server import Server

log = logging.getLogger("wonted")

MANDATORY = ("exec", "fork", "exit", "cgroup")
"""Without these no event can be told apart: `run` ends with exit code 4."""
BLIND = 4
"""Exit code: privilege or kernel."""
PROBE_STOP = 5.0
"""Seconds the probe process has to send what it has, before it is killed."""
DRAIN = 5.0
"""Seconds that batches in the log are still applied at the end; the rest waits there for the next start."""
STOP = 10.0
"""Seconds for the stream to commit and close."""
BACKOFF = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before the probe process is started again."""
TRIES = 3
"""Starts of a probe process that never got ready, before `run` gives up."""
STEADY = 60.0
"""Seconds that it must live for the backoff to begin anew."""
STALL = 180.0
"""Seconds in which batches wait and none is applied or committed, before `run` ends, to be started again."""
RECENT = 3600.0
"""Seconds that a restart of the probe process keeps `status` yellow."""
REPORTS = 15.0
"""Seconds without a report of the probe: yellow. It reports every 5."""
FULL = 1 << 20
"""Bytes. With less free, an error at the start is the disk's."""
TWICE = 0.5
"""Seconds in which two signals are one: timeout(1) sends it to the process and to its group."""
PR_SET_PDEATHSIG = 1


class Busy(Exception):
    """Another instance holds the data directory."""


def run(settings: Settings, data: str | Path, *, config_sources: Iterable[str] = (), probe: bool = True) -> int:
    """Until SIGTERM or Ctrl-C; the exit code. `probe=False`: only the worker, for tests and for a broker."""
    data = Path(data).absolute()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="wonted: %(message)s")
    log.setLevel(logging.INFO)
    os.umask(0o077)  # what is kept holds command lines, whoever made the folder
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(data)
    except Busy as error:
        print(f"wonted: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"wonted: {data}: {error.strerror}; give another --data", file=sys.stderr)
        return 1
    try:
        return asyncio.run(_Main(settings, data, [str(source) for source in config_sources], probe).main())
    finally:
        os.close(lock)


def _lock(data: Path) -> int:
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        raise Busy(f"another wonted (pid {pid or '?'}) uses {data}; stop it or give --data") from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


class Probe:
    """The probe process: started, watched, started again."""

    def __init__(self, settings: Settings, data: Path, enabled: bool) -> None:
        self.settings, self.data, self.enabled = settings, data, enabled
        self.pid: int | None = None
        self.probes: dict[str, dict[str, Any]] = {}
        self.rates: dict[str, float] = {}
        self.lost: dict[str, int] = {}
        self.counters: dict[str, int] = {}
        self.rights: dict[str, Any] = {}
        """What it holds, by its own word: holds, could_get, no_new_privs."""
        self.reported: float | None = None
        self.ready = asyncio.Event()
        self.restarts = 0
        self.blind: list[tuple[float, float | None]] = []
        """Intervals without a probe: from, to (seconds since the epoch; None: still), the latest 20."""
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def start(self) -> None:
        """Spawn it and hand it its settings, one line of JSON on stdin."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "probes",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            preexec_fn=_die_with_parent(os.getpid()),
            process_group=0,  # Ctrl-C reaches only us; we stop it in order
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        orders = {
            "socket": str(self.data / SOCKET),
            "settings": self.settings.probes.model_dump(),
            "partitions": self.settings.partitions,
            "host": socket.gethostname(),
            "state_dir": str(self.data),
            "self_pids": [os.getpid()],
        }
        with suppress(ConnectionError):
            self._process.stdin.write(msgspec.json.encode(orders) + b"\n")
            await self._process.stdin.drain()
            self._process.stdin.close()

    async def watch(self) -> int:
        """Start it again whenever it ends. Returns only when that makes no sense: its exit code."""
        failures = 0
        while True:
            assert self._process is not None
            begun = time.time()
            code = await self._process.wait()
            self.pid = None
            if self._stopping:
                return 0
            if code == BLIND or (self.reported is None and self.restarts >= TRIES):
                return code if code > 0 else 1
            ended = time.time()
            failures = 0 if ended - begun > STEADY else failures
            delay = BACKOFF[min(failures, len(BACKOFF) - 1)]
            failures += 1
            self.restarts += 1
            metrics.restarts.inc()
            self.ready.clear()
            self._set_attached(False)
            if not self.blind or self.blind[-1][1] is not None:
                self.blind = [*self.blind[-19:], (ended, None)]
            log.error("the probe process ended (%s); starting it again in %g s", _ending(code), delay)
            await asyncio.sleep(delay)
            await self.start()

    async def stop(self) -> None:
        """Let it send what it has, then end it."""
        self._stopping = True
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), PROBE_STOP)
        except TimeoutError:
            log.error("the probe process did not end within %g s; killed", PROBE_STOP)
            self._process.kill()
            await self._process.wait()

    def report(self, state: dict[str, Any]) -> None:
        """What the probe says about itself."""
        probes = state.get("probes")
        if isinstance(probes, dict):
            self.probes = probes
            self._set_attached(True)
        if isinstance(state.get("rates"), dict):
            self.rates = state["rates"]
        if isinstance(state.get("lost"), dict):
            self.lost = state["lost"]
        if isinstance(state.get("counters"), dict):
            self.counters = state["counters"]
        if isinstance(state.get("rights"), dict):
            self.rights = state["rights"]
        self.reported = time.time()
        if self.blind and self.blind[-1][1] is None:
            begun, _ = self.blind[-1]
            self.blind[-1] = (begun, self.reported)
            metrics.blind.inc(self.reported - begun)
        self.ready.set()

    def missing(self) -> dict[str, str]:
        """Probe -> why it is not attached."""
        return {
            name: str(probe.get("error") or "not attached")
            for name, probe in self.probes.items()
            if not probe.get("attached")
        }

    def troubles(self) -> list[str]:
        if not self.enabled:
            return ["no probe runs (--no-probe)"] if not self.ready.is_set() else []
        troubles = [f"probe {name}: {error}" for name, error in self.missing().items()]
        if not self.ready.is_set():
            troubles.append("the probes are not attached yet")
        elif self.reported and time.time() - self.reported > REPORTS:
            troubles.append(f"the probe process has not reported for {time.time() - self.reported:.0f} s")
        recent = sum(ended is None or time.time() - ended < RECENT for _, ended in self.blind)
        if recent:
            troubles.append(f"the probe process was started again {recent} x within the hour; blind meanwhile")
        return troubles

    def describe(self) -> dict[str, Any]:
        return {
            "enabled": self.enabled,
            "pid": self.pid,
            "ready": self.ready.is_set(),
            "restarts": self.restarts,
            "blind": self.blind,
            "lost": self.lost,
            "counters": self.counters,
            "rights": self.rights,
            "report_age_s": round(time.time() - self.reported, 1) if self.reported else None,
        }

    def _set_attached(self, alive: bool) -> None:
        for name, probe in self.probes.items():
            metrics.attached.labels(name).set(int(alive and bool(probe.get("attached"))))


class _Main:
    """One run."""

    def __init__(self, settings: Settings, data: Path, sources: list[str], probe: bool) -> None:
        self.settings, self.data, self.sources, self.with_probe = settings, data, sources, probe
        self.stop = asyncio.Event()
        self.signalled: float | None = None

    async def main(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(
            signal.SIGHUP, lambda: log.warning("SIGHUP: the config is read at start only; restart to change it")
        )
        server = Server(self.data)
        server.listen()
        probe = Probe(self.settings, self.data, self.with_probe)
        if self.with_probe:
            await probe.start()
        try:
            return await self._serve(server, probe)
        finally:
            await probe.stop()
            await server.close()

    async def _serve(self, server: Server, probe: Probe) -> int:
        # Imported here: faust and the models are 2 s and 100 MB, and meanwhile the probe compiles.
        from pipeline import transport
        from pipeline.app import build
        from pipeline.service import Service
        from pipeline.sinks.base import SinkConfigError
        from pipeline.sinks.outbox import OutboxError
        from pipeline.topics import BASELINES, topics
        from pipeline.transport.errors import WRITE_ERRORS

        try:
            table = transport.changelog("wonted", BASELINES, self.settings.partitions)
            await transport.ensure_topics(self.settings, self.data, [*topics(self.settings), table])
            app = build(self.settings, self.data, sinks=_sinks(self.settings, self.data), push=server.push)
        except SinkConfigError as error:
            print(f"wonted: {error}", file=sys.stderr)
            return 3
        except (OutboxError, *WRITE_ERRORS) as error:
            full = shutil.disk_usage(self.data).free < FULL
            fix = f"; the disk of {self.data} is full: free some space, or give another --data" if full else ""
            print(f"wonted: cannot start: {error}{fix}", file=sys.stderr)
            return 1
        service = Service(self.settings, self.data, app, server, probe, self.sources)
        service.stop = self.stop
        code = await self._until_end(app, server, service, probe)
        await self._wind_down(app, server, probe)
        return code

    async def _until_end(self, app: Any, server: Server, service: Any, probe: Probe) -> int:
        """The exit code."""
        ends: dict[asyncio.Task[Any], str] = {
            asyncio.ensure_future(self.stop.wait()): "stop",
            asyncio.ensure_future(self._start(app, server, service, serving := asyncio.Event())): "start",
            asyncio.ensure_future(app.wait_until_stopped()): "app",
            asyncio.ensure_future(self._announce(app, probe, serving)): "ready",
            asyncio.ensure_future(self._stalled(app)): "stalled",
        }
        if self.with_probe:
            ends[asyncio.ensure_future(probe.watch())] = "probe"
        try:
            while True:
                done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    match ends.pop(task):
                        case "stop":
                            return 0
                        case "start":
                            task.result()  # raises what the start raised
                        case "ready" if task.result():
                            return int(task.result())
                        case "app":
                            log.error("the stream stopped: %r", app.crash_reason)
                            return 1
                        case "stalled":
                            log.error("the stream stands still, a restart is due: %s", task.result())
                            return 1
                        case "probe":
                            return 0 if self.stop.is_set() else int(task.result())
        finally:
            for task in ends:
                task.cancel()

    @staticmethod
    async def _stalled(app: Any) -> str:
        """Returns when the stream has stood still for STALL seconds: why."""
        from pipeline.stall import Stall

        stall = Stall(STALL)
        while True:
            await asyncio.sleep(min(5.0, STALL / 4))
            why: str | None = app.stalled(stall)
            if why is not None:
                return why

    @staticmethod
    async def _start(app: Any, server: Server, service: Any, serving: asyncio.Event) -> None:
        await app.start()  # returns when the table is recovered
        await server.serve(service.handlers())
        serving.set()

    async def _announce(self, app: Any, probe: Probe, serving: asyncio.Event) -> int:
        """Say that all is ready, once it is. Not 0: it cannot become so."""
        await serving.wait()
        await app.stages.consumed.wait()
        if not self.with_probe:
            self._ready(probe, "0/0")
            return 0
        await probe.ready.wait()
        missing = probe.missing()
        for name, error in missing.items():
            print(f"wonted: probe {name} is missing: {error}", file=sys.stderr)
        if any(name in missing for name in MANDATORY):
            return BLIND
        self._ready(probe, f"{len(probe.probes) - len(missing)}/{len(probe.probes)}")
        return 0

    def _ready(self, probe: Probe, count: str) -> None:
        print(f"wonted: ready {count} probes", file=sys.stderr, flush=True)
        to_a_person("alerts appear here; ask `wonted status` in another terminal; Ctrl-C ends it")
        notify("READY=1")

    async def _wind_down(self, app: Any, server: Server, probe: Probe) -> None:
        notify("STOPPING=1")
        await probe.stop()
        await server.close()
        if app.crash_reason is None:
            deadline = time.monotonic() + DRAIN
            while time.monotonic() < deadline and app.waiting():  # noqa: ASYNC110 (only at the end)
                await asyncio.sleep(0.02)
        await app.stages.close()
        app.outbox.stop()
        try:
            async with asyncio.timeout(STOP):
                await app.consumer.commit()
                await app.stop()
        except Exception as error:  # a broker that is away; what is not committed is replayed
            log.error("the stream was not closed in order: %r", error)
        await app.outbox.close()

    def _signalled(self) -> None:
        if self.signalled is None:
            self.signalled = time.monotonic()
            to_a_person("ending; what is under way is kept")
        elif time.monotonic() - self.signalled > TWICE:
            print("wonted: forced", file=sys.stderr, flush=True)
            os._exit(130)  # the probe dies with us
        self.stop.set()


def _sinks(settings: Settings, data: Path) -> list[Any]:
    import pipeline.sinks

    made = [sink.from_settings(settings, data) for sink in getattr(pipeline.sinks, "SINKS", ())]
    return [sink for sink in made if sink is not None]


def to_a_person(words: str) -> None:
    """Where somebody is watching; a log does without."""
    if sys.stderr.isatty():
        print(f"wonted: {words}", file=sys.stderr, flush=True)


def notify(state: str) -> None:
    """Tell systemd, where it started us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, suppress(OSError):
        channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def _die_with_parent(parent: int) -> Any:
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return prepare


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
