"""Talk to the running `wonted run` over DATA/wonted.sock: what the command line uses.

Frames are a little-endian u32 length and a msgpack map. A request carries "op"; an answer carries "ok" and then
"result", or "error": a text for a person. Answers come in the order of the requests.

The probe process has its own few lines of this: probes/ imports nothing from pipeline/.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

SOCKET = "wonted.sock"
LENGTH = struct.Struct("<I")
LARGEST = 64 << 20
"""Bytes. A longer frame is a broken or hostile peer; the connection is closed."""


class ClientError(Exception):
    """Something a person can read and act on."""


class NotRunning(ClientError):
    """No service answers in this data directory."""


class Refused(ClientError):
    """The service answered, and the answer is no."""


def frame(message: dict[str, Any]) -> bytes:
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


class Client:
    """One connection. `call` for one answer, `stream` for answers until closed.

    >>> Client("/nonexistent").call("status")
    Traceback (most recent call last):
    pipeline.client.NotRunning: no wonted runs on /nonexistent; start it with `wonted run`, or give its --data
    """

    def __init__(self, data: str | Path, *, timeout: float | None = 10.0) -> None:
        self.data = Path(data)
        self.timeout = timeout
        self.note: str | None = None
        """What the latest answer leaves out, for a person: another worker holds it."""
        self._socket: socket.socket | None = None
        self._buffer = bytearray()

    def call(self, op: str, **args: Any) -> Any:
        """The answer's "result" (for `batch`: the whole answer). Raises NotRunning or Refused."""
        self.send({"op": op, **args})
        answer = self.receive()
        self.note = answer.get("note")
        return _result(answer)

    def stream(self, op: str, **args: Any) -> Iterator[Any]:
        """Each item as it comes; ends when the service closes the stream. {"dropped": n} says that n were skipped
        because they were not read fast enough."""
        self.send({"op": op, **args})
        _result(self.receive())
        assert self._socket is not None
        self._socket.settimeout(None)
        while True:
            try:
                answer = self.receive()
            except NotRunning:
                return
            if answer.get("end"):
                return
            yield _result(answer)

    def send(self, message: dict[str, Any]) -> None:
        connection = self._connected()
        with suppress(BrokenPipeError, ConnectionResetError):  # what there is to read says why
            connection.sendall(frame(message))

    def receive(self) -> dict[str, Any]:
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        if length > LARGEST:
            self.close()
            raise ClientError(f"{self.data / SOCKET}: a frame of {length} bytes; at most {LARGEST} are allowed")
        answer = msgspec.msgpack.decode(self._read(length))
        if not isinstance(answer, dict):
            raise ClientError(f"{self.data / SOCKET}: expected a map, got {type(answer).__name__}")
        return answer

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._buffer.clear()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = connect(self.data, self.timeout)
        return self._socket

    def _read(self, size: int) -> bytes:
        if self._socket is None:
            raise NotRunning(f"the service on {self.data} closed the connection")
        while len(self._buffer) < size:
            try:
                chunk = self._socket.recv(1 << 16)
            except TimeoutError:
                self.close()
                raise ClientError(f"the service on {self.data} did not answer within {self.timeout:g} s") from None
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                self.close()
                raise NotRunning(f"the service on {self.data} closed the connection")
            self._buffer += chunk
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def connect(data: Path, timeout: float | None) -> socket.socket:
    """A connected socket, also where DATA's path is longer than a socket's address may be (107 bytes)."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        with short(data) as path:
            connection.connect(path)
    except PermissionError:
        connection.close()
        raise ClientError(f"no permission on {data / SOCKET}; run as root, or as the user that runs wonted") from None
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        connection.close()
        raise NotRunning(f"no wonted runs on {data}; start it with `wonted run`, or give its --data") from None
    except TimeoutError:
        connection.close()
        raise ClientError(f"the service on {data} did not answer within {timeout} s") from None
    return connection


class short:
    """A path to DATA/wonted.sock that fits a socket's address: by way of /proc/self/fd where it is too long."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._directory = -1

    def __enter__(self) -> str:
        import os

        path = str(self.data / SOCKET)
        if len(os.fsencode(path)) < 108:
            return path
        self._directory = os.open(self.data, os.O_PATH | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._directory}/{SOCKET}"

    def __exit__(self, *_: object) -> None:
        import os

        if self._directory >= 0:
            os.close(self._directory)


def _result(answer: dict[str, Any]) -> Any:
    if not answer.get("ok", True):
        raise Refused(str(answer.get("error", "refused without a reason")))
    return answer.get("result", answer)
