"""Batch <-> bytes. Each process, container and repeated word travels once; events refer to their place in a table.

Layout: msgpack array [version, batch fields..., words, containers, processes, events, windows, repeats]. A process
refers only to a parent before it in the table, so what a stranger sends cannot make a loop.
"""

from typing import Any

import msgspec

from probes.event import Batch, Container, Event, Process, Remote, Window

VERSION = 1
NONE = -1


class BadBatch(ValueError):
    """Bytes that are not a batch of a known version."""


class _Process(msgspec.Struct, array_like=True):
    pid: int
    vpid: int
    ppid: int
    comm: str
    exe: str | None
    argv: tuple[str, ...]
    argv_cut: bool
    parent: int
    start: int
    login_uid: int | None
    tty: str | None
    entered: str | None


class _Event(msgspec.Struct, array_like=True):
    time: int
    workload: int
    kind: int
    action: int
    process: int
    tid: int
    uid: int
    object: str | None
    flags: int
    result: int
    remote: Remote | None
    container: int
    detail: dict[str, Any]
    count: int
    lost: int
    key: int = 0
    shape: int = 0


class _Window(msgspec.Struct, array_like=True):
    time: int
    workload: int
    counts: dict[str, int]
    lost: int
    calls: dict[int, int] = {}
    errors: dict[int, int] = {}


class _Batch(msgspec.Struct, array_like=True):
    version: int
    host: str
    boot: str
    run: str
    seq: int
    partition: int
    time: int
    lost: dict[str, int]
    note: dict[str, Any]
    words: list[str]
    containers: list[Container]
    processes: list[_Process]
    events: list[_Event]
    windows: list[_Window]
    repeats: dict[str, dict[int, int]] = {}


class _Tables:
    """The tables of one batch while it is written. Objects are told apart by identity: the agent shares them."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.containers: list[Container] = []
        self.processes: list[_Process] = []
        self._container_at: dict[int, int] = {}
        self._process_at: dict[int, int] = {}

    def word(self, word: str | None) -> int:
        if word is None:
            return NONE
        return self.words.setdefault(word, len(self.words))

    def container(self, container: Container | None) -> int:
        if container is None:
            return NONE
        at = self._container_at.get(id(container))
        if at is None:
            at = self._container_at[id(container)] = len(self.containers)
            self.containers.append(container)
        return at

    def process(self, p: Process | None) -> int:
        if p is None:
            return NONE
        at = self._process_at.get(id(p))
        if at is None:
            parent = self.process(p.parent)
            at = self._process_at[id(p)] = len(self.processes)
            self.processes.append(
                _Process(
                    p.pid, p.vpid, p.ppid, p.comm, p.exe, p.argv, p.argv_cut, parent, p.start, p.login_uid, p.tty,
                    p.entered,
                )
            )  # fmt: skip
        return at


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Batch)


def encode(batch: Batch) -> bytes:
    """One batch as bytes."""
    t = _Tables()
    word, process, container = t.word, t.process, t.container
    events = [
        _Event(
            e.time, word(e.workload), word(e.kind), word(e.action), process(e.process), e.tid, e.uid, e.object,
            word(e.flags), e.result, e.remote, container(e.container), e.detail, e.count, e.lost, e.key, e.shape,
        )
        for e in batch.events
    ]  # fmt: skip
    windows = [_Window(w.time, word(w.workload), w.counts, w.lost, w.calls, w.errors) for w in batch.windows]
    return _encoder.encode(
        _Batch(
            VERSION, batch.host, batch.boot, batch.run, batch.seq, batch.partition, batch.time, batch.lost, batch.note,
            list(t.words), t.containers, t.processes, events, windows, batch.repeats,
        )
    )  # fmt: skip


def decode(data: bytes) -> Batch:
    """The batch in `data`; raises BadBatch where there is none."""
    try:
        raw = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBatch(f"not a batch: {error}") from None
    if raw.version != VERSION:
        raise BadBatch(f"a batch of version {raw.version}; this program reads version {VERSION}")
    try:
        return _resolve(raw)
    except IndexError:
        raise BadBatch("not a batch: it refers to an entry that is in none of its tables") from None


def _resolve(raw: _Batch) -> Batch:
    # A trailing None is what index -1 finds.
    words: list[Any] = [*raw.words, None]
    containers: list[Container | None] = [*raw.containers, None]
    processes: list[Any] = []
    for p in raw.processes:
        parent = processes[p.parent] if p.parent >= 0 else None
        processes.append(
            Process(
                p.pid, p.vpid, p.ppid, p.comm, p.exe, p.argv, p.argv_cut, parent, p.start, p.login_uid, p.tty, p.entered
            )
        )
    for e in raw.events:
        if min(e.workload, e.kind, e.action, e.process) < 0 or e.flags < NONE or e.container < NONE:
            raise IndexError
    for w in raw.windows:
        if not 0 <= w.workload < len(raw.words):
            raise IndexError
    if any(max(e.workload, e.kind, e.action, e.flags) >= len(raw.words) for e in raw.events):
        raise IndexError
    events = [
        Event(
            e.time, words[e.workload], words[e.kind], words[e.action], processes[e.process], e.tid, e.uid, e.object,
            words[e.flags], e.result, e.remote, containers[e.container], e.detail, e.count, e.lost, e.key, e.shape,
        )
        for e in raw.events
    ]  # fmt: skip
    windows = [Window(w.time, words[w.workload], w.counts, w.lost, w.calls, w.errors) for w in raw.windows]
    return Batch(
        raw.host, raw.boot, raw.run, raw.seq, raw.partition, raw.time, events, windows, raw.lost, raw.note, raw.repeats
    )  # fmt: skip
