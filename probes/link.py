"""The probe's end of DATA/wonted.sock: batches go out in order and are kept until the worker has them in its log.

Frames as in pipeline/server.py: a little-endian u32 length and a msgpack map; answers come in the order of requests.
Never blocks: `pump` does what can be done now.
"""

import socket
import struct
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import msgspec

LENGTH = struct.Struct("<I")
LARGEST = 64 << 20
WAITING = 16 << 20
"""Bytes of batches that wait for the worker; beyond that, new ones are lost, and counted."""
CHUNK = 1 << 18
"""Bytes handed to the socket at a time."""
RETRY = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to reach a worker."""
REFUSALS = 30
"""Times that the worker may refuse a batch (its disk may be full) before it is given up."""


class Link:
    """`send` never fails and never waits; what does not fit is counted in `lost`."""

    def __init__(
        self,
        path: str,
        pushed: Callable[[dict[str, Any]], None] = lambda frame: None,
        who: dict[str, str] | None = None,
    ) -> None:
        self.path = path
        self.who = who or {}
        """Said in the greeting: host and boot id."""
        self.pushed = pushed
        self.lost: dict[str, int] = {}
        """Events by "queue.<kind>", since the start."""
        self.error: str | None = None
        self._waiting: deque[tuple[bytes, dict[str, int]]] = deque()
        self._size = 0
        self._written = 0
        """How many of `_waiting` this connection has been given."""
        self._socket: socket.socket | None = None
        self._out = bytearray()
        self._in = bytearray()
        self._expected: deque[str] = deque()
        self._controls: deque[bytes] = deque(maxlen=4)
        self._tries = 0
        self._next_try = 0.0
        self._refused = 0

    def __len__(self) -> int:
        """Batches not acknowledged."""
        return len(self._waiting)

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def size(self) -> int:
        """Bytes not acknowledged."""
        return self._size

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._out and not self._controls and not self._expected

    @property
    def stuck(self) -> bool:
        """Is there more to write than the worker has taken?"""
        return bool(self._out)

    def send(self, partition: int, payload: bytes, counts: dict[str, int]) -> bool:
        """False: there is no room, it is lost and counted."""
        frame = _frame({"op": "batch", "partition": partition, "payload": payload})
        if self._size + len(frame) > WAITING:
            self._lose(counts)
            return False
        self._waiting.append((frame, counts))
        self._size += len(frame)
        return True

    def control(self, message: dict[str, Any]) -> None:
        """What is only worth telling now: the latest few are kept."""
        self._controls.append(_frame(message))

    def pump(self) -> None:
        """Connect, write, read: as far as it goes without waiting."""
        if self._socket is None and not self._connect():
            return
        try:
            self._write()
            self._read()
            self._write()
        except (OSError, msgspec.DecodeError, ValueError) as error:
            self._disconnect(str(error))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _lose(self, counts: dict[str, int]) -> None:
        for kind, count in (counts or {"batch": 1}).items():
            self.lost[f"queue.{kind}"] = self.lost.get(f"queue.{kind}", 0) + count

    def _connect(self) -> bool:
        if monotonic() < self._next_try:
            return False
        attempt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            attempt.settimeout(1.0)
            attempt.connect(self.path)
            attempt.setblocking(False)
        except OSError as error:
            attempt.close()
            self._disconnect(f"{self.path}: {error.strerror or error}")
            return False
        self._socket = attempt
        self._out += _frame({"op": "hello", "role": "probe", **self.who})
        self._expected.append("hello")
        return True

    def _disconnect(self, why: str) -> None:
        self.close()
        self.error = why
        self._out.clear()
        self._in.clear()
        self._expected.clear()
        self._written = 0
        self._next_try = monotonic() + RETRY[min(self._tries, len(RETRY) - 1)]
        self._tries += 1

    def _write(self) -> None:
        assert self._socket is not None
        while True:
            while len(self._out) < CHUNK and self._feed():
                pass
            if not self._out:
                return
            try:
                sent = self._socket.send(self._out[:CHUNK])
            except BlockingIOError:
                return
            del self._out[:sent]

    def _feed(self) -> bool:
        if self._controls:
            self._out += self._controls.popleft()
            self._expected.append("control")
        elif self._written < len(self._waiting):
            self._out += self._waiting[self._written][0]
            self._written += 1
            self._expected.append("batch")
        else:
            return False
        return True

    def _read(self) -> None:
        assert self._socket is not None
        while True:
            try:
                piece = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            if not piece:
                raise ConnectionResetError("the worker closed the connection")
            self._in += piece
        while len(self._in) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._in)
            if length > LARGEST:
                raise ValueError(f"a frame of {length} bytes from the worker")
            if len(self._in) < LENGTH.size + length:
                return
            frame = msgspec.msgpack.decode(bytes(self._in[LENGTH.size : LENGTH.size + length]))
            del self._in[: LENGTH.size + length]
            if not isinstance(frame, dict):
                raise ValueError("a frame from the worker that is no map")
            self._take(frame)

    def _take(self, frame: dict[str, Any]) -> None:
        if "push" in frame:
            self.pushed(frame)
            return
        if not self._expected:
            raise ValueError("an answer that nobody asked for")
        if self._expected.popleft() != "batch":
            self._tries = 0
            return
        if not frame.get("ok"):
            self._refused += 1
            if self._refused < REFUSALS:
                raise ConnectionError(f"the worker refused a batch: {frame.get('error')}")
            self._lose(self._waiting[0][1])
        self._refused = 0
        gone, _ = self._waiting.popleft()
        self._size -= len(gone)
        self._written -= 1


def _frame(message: dict[str, Any]) -> bytes:
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body
