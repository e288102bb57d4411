"""Laws of the batch's bytes: what goes in comes out, each process once, and rubbish is refused by name."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.batch import BadBatch, decode, encode
from probes.event import Batch, Container, Event, Process, Remote, Window

SHELL = Process(pid=10, vpid=1, ppid=9, comm="sh", exe="/bin/sh", argv=("sh", "-c", "x"), start=5, tty="pts0")
CURL = Process(pid=11, vpid=2, ppid=10, comm="curl", exe="/usr/bin/curl", argv=("curl", "é\\xff"), parent=SHELL)
WEB = Container(id="a" * 64, name="web-1", image="web:1", ip=("172.17.0.2",), labels={"a": "b"}, runtime="docker")


def batch_of(*events: Event, windows: list[Window] | None = None) -> Batch:
    return Batch("h", "boot", "run", 7, 3, 99, list(events), windows or [], {"ring.file": 2}, {"blind": [1, 2]})


def connect(process: Process = CURL, **more: object) -> Event:
    return Event(1, "shop/web", "connect", "connect", process, 11, 0, "1.2.3.4:443", **more)  # type: ignore[arg-type]


def test_a_batch_comes_back_as_it_was() -> None:
    """Encoding and decoding lose nothing."""
    batch = batch_of(
        connect(
            remote=Remote("1.2.3.4", 443, "example.com"), container=WEB, detail={"family": "inet"}, count=3, lost=1
        ),
        connect(SHELL, flags="O_RDONLY", result=-13),
        windows=[Window(1, "shop/web", {"file.open_read": 9}, 1)],
    )

    assert batch == decode(encode(batch))


def test_a_process_and_a_container_travel_once() -> None:
    """A hundred events of one process cost far less than a hundred processes."""
    one = len(encode(batch_of(connect(container=WEB))))
    hundred = len(encode(batch_of(*[connect(container=WEB)] * 100)))

    assert hundred < one + 99 * 60


def test_decoded_events_share_their_process() -> None:
    """Identity survives, so a reader may cache by it."""
    events = decode(encode(batch_of(connect(), connect(), connect(SHELL)))).events

    assert events[0].process is events[1].process
    assert events[0].process.parent is events[2].process


@given(st.binary(max_size=200))
def test_rubbish_is_refused_by_name(data: bytes) -> None:
    """Any bytes either decode or raise BadBatch, nothing else."""
    with pytest.raises(BadBatch):
        decode(data)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_flipped_byte_is_a_batch_or_bad(at: int, value: int) -> None:
    """A corrupt batch never raises anything but BadBatch."""
    data = bytearray(encode(batch_of(connect(container=WEB), windows=[Window(1, "w", {})])))
    data[at % len(data)] = value

    try:
        decode(bytes(data))
    except BadBatch:
        pass


def test_a_later_version_is_named() -> None:
    """The message says which version came."""
    raw = msgspec.msgpack.decode(encode(batch_of()))
    raw[0] = 2

    with pytest.raises(BadBatch, match="version 2"):
        decode(msgspec.msgpack.encode(raw))
