"""What one process did (Event), what a workload did in a second (Window), and how both travel (Batch).

A batch carries each process and each container once and its events refer to them, so an event costs tens of bytes on
the wire and every event still answers who, where and from which parent.
"""

from typing import Any

import msgspec

KINDS = ("exec", "file", "connect", "accept", "listen", "dns", "privilege", "sequence", "rate", "danger", "sensor")


class Container(msgspec.Struct, frozen=True, array_like=True):
    """A container as its runtime describes it. Unknown is None."""

    id: str
    """64 hex digits where the runtime has them."""
    name: str | None = None
    image: str | None = None
    digest: str | None = None
    ip: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    runtime: str | None = None
    """docker, containerd, runc, podman or crio."""
    namespace: str | None = None
    pod: str | None = None
    owner: str | None = None
    privileged: bool = False
    mounts: tuple[str, ...] = ()
    """Host paths that are mounted into the container, where the runtime's state tells."""
    started: int = 0
    """Nanoseconds since the epoch; 0: unknown."""


class Process(msgspec.Struct, frozen=True, array_like=True):
    """A process image: pid and what it executes. A new exec in the same pid is a new Process."""

    pid: int
    vpid: int
    ppid: int
    comm: str
    exe: str | None = None
    argv: tuple[str, ...] = ()
    argv_cut: bool = False
    parent: "Process | None" = None
    """The parent as it was; at most 8 levels, ending at the container's (or session's) first process."""
    start: int = 0
    """When this image began to run, nanoseconds since the epoch; 0: before the agent."""
    login_uid: int | None = None
    tty: str | None = None
    entered: str | None = None
    """How the first process of this lineage came into the container when not from its own first process:
    "docker exec", "kubectl exec", "runtime", "ssh", or None."""

    @property
    def command(self) -> str:
        """The command line as a person would write it: shell quoting where an argument needs it."""
        import shlex

        return shlex.join(self.argv) if self.argv else (self.exe or self.comm)


class Remote(msgspec.Struct, frozen=True, array_like=True):
    ip: str | None
    port: int | None
    name: str | None = None
    """The DNS name by which the workload last asked for this address."""


class Event(msgspec.Struct, frozen=True, array_like=True):
    """One thing a process did, with what came of it."""

    time: int
    """Nanoseconds since the epoch."""
    workload: str
    kind: str
    """exec, file, connect, accept, listen, dns, privilege or sensor."""
    action: str
    """exec exit | open_read open_write create unlink rename link symlink mknod mkdir rmdir chmod chown truncate
    utime setxattr removexattr chattr |
    connect udp_send | accept | bind listen | query answer | the name of the privileged call | container_start ..."""
    process: Process
    tid: int
    uid: int
    object: str | None = None
    """What was acted on: absolute path, "1.2.3.4:443", "unix:/run/x.sock", DNS name, exe of an exec."""
    flags: str | None = None
    """As words, joined by "|": O_WRONLY|O_CREAT."""
    result: int = 0
    """The call's return value; negative: -errno (the call was refused)."""
    remote: Remote | None = None
    container: Container | None = None
    detail: dict[str, Any] = {}
    """Per action: rename and link: to; chmod: mode; utime: mtime, backdated; setxattr: name; dns answer:
    addresses, ttl; kill: signal, target; connect: family (inet, inet6, unix), proto (tcp, udp). Of any: compat (a
    32-bit call), io_uring (asked of io_uring; the result is not known). And what the danger rules read: memfd,
    deleted, stdio_socket ..."""
    count: int = 1
    """How many identical events within one flush this one stands for."""
    lost: int = 0
    """Events of this kind known to be lost since the batch before."""
    key: int = 0
    """The kernel's keyed hash of exactly this behaviour (cgroup, image, file, flags); 0: it is always sent. A worker
    that finds the event usual answers with it, and from then on the kernel counts it (Batch.repeats)."""
    shape: int = 0
    """The same of the path with what changes from run to run left out (numbers, random names); 0: none."""


def nobodys(lost: dict[str, int]) -> dict[str, int]:
    """Of what was lost ("stage.kind"), that of which nobody knows whose it was. What the kernel held back it held back
    from one workload, whose windows say how much (`HELD`).

    >>> nobodys({"ring.exec": 1, "bucket.file": 20})
    {'ring.exec': 1}
    """
    return {place: count for place, count in lost.items() if not place.startswith("bucket.")}


def lost_of(kind: str, lost: dict[str, int]) -> int:
    """Of what was lost, what may have been events of this kind and of any workload: its own kind, and what is of no
    kind (a fork that was lost, bytes that could not be read).

    >>> lost_of("exec", {"ring.exec": 1, "bucket.exec": 20, "ring.file": 50, "reader.decode": 300, "ring.fork": 4000})
    4301
    """
    lost = nobodys(lost)
    return sum(n for place, n in lost.items() if (of := place.rpartition(".")[2]) == kind or of not in KINDS)


HELD = "held"
"""The count of a window: new names that the kernel held back from this workload, because there were too many."""


class Window(msgspec.Struct, frozen=True, array_like=True):
    """What one workload did in one second."""

    time: int
    """Start, nanoseconds since the epoch."""
    workload: str
    counts: dict[str, int]
    """Events by "kind.action" (repeats included), plus forks, failed, bytes_out ... where known, and HELD."""
    lost: int = 0
    """Events known to be lost since that second began, nobody knows whose, and those held back from this workload."""
    calls: dict[int, int] = {}
    """System call number -> how often."""
    errors: dict[int, int] = {}
    """errno -> how many calls ended so; 63 stands for all above."""


class Batch(msgspec.Struct, frozen=True):
    """One flush of one node for one stream partition. Self-contained."""

    host: str
    boot: str
    """Kernel boot id; with `run` and `seq` it identifies a batch for ever."""
    run: str
    """Id of this run of the agent."""
    seq: int
    """Counts up by one per (run, partition) from 0: a gap is a loss."""
    partition: int
    time: int
    """When the batch was closed, nanoseconds since the epoch. Idle partitions get an empty batch every few seconds."""
    events: list[Event] = []
    windows: list[Window] = []
    lost: dict[str, int] = {}
    """Since the batch before, by "stage.kind": "ring.file" (the ring was full), "bucket.file" (the kernel held it back:
    one workload floods), "reader.decode", "queue.dns"."""
    note: dict[str, Any] = {}
    """Rare facts: {"blind": [from_ns, to_ns]} after a restart, {"probes": {...}}."""
    repeats: dict[str, dict[int, int]] = {}
    """workload -> Event.key or Event.shape -> how often the kernel counted it instead of sending, since last told."""
