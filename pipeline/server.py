"""DATA/wonted.sock: how the probe process and the command line reach the worker. Frames as in client.py.

Who may: root and the user that the worker runs as; the kernel says who the peer is (SO_PEERCRED). The socket is 0600.
Answers come in order per connection. A batch is answered after it is in the log: then it survives kill -9.
"""

import asyncio
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from pipeline import metrics
from pipeline.client import LARGEST, LENGTH, SOCKET, frame, short
from pipeline.live import describe

log = logging.getLogger("wonted")

CONNECTIONS = 64
WAITING = 5000
"""Live events kept for a reader that is slow; more are dropped, counted and told to it."""

Handler = Callable[["Connection", dict[str, Any]], Awaitable[dict[str, Any] | None]]


class Refusal(Exception):
    """The answer is no, with a text for a person."""


class Connection:
    """One peer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, uid: int, pid: int) -> None:
        self.reader, self.writer = reader, writer
        self.uid, self.pid = uid, pid
        self.probe = False
        self.host: tuple[str, str] | None = None
        """Of a probe: the name of its host, and the boot id."""

    async def receive(self) -> dict[str, Any] | None:
        """The next request; None at the end."""
        try:
            (length,) = LENGTH.unpack(await self.reader.readexactly(LENGTH.size))
            if length > LARGEST:
                raise Refusal(f"a frame of {length} bytes; at most {LARGEST} are allowed")
            message = msgspec.msgpack.decode(await self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(f"not msgpack: {error}") from None
        if not isinstance(message, dict) or not isinstance(message.get("op"), str):
            raise Refusal('expected a map with "op"')
        return message

    async def send(self, *messages: dict[str, Any]) -> None:
        self.writer.write(b"".join(map(frame, messages)))
        await self.writer.drain()

    async def refuse(self, error: str) -> None:
        """Say so and hang up. What the peer is still sending is read first: else the kernel would throw the answer away
        with it."""
        await self.send({"ok": False, "error": error})
        self.writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self.reader.read(1 << 16)

    def close(self) -> None:
        self.writer.close()


class Subscriber:
    """Somebody who watches the events live."""

    def __init__(self, workload: str | None, kind: str | None, everything: bool) -> None:
        self.workload, self.kind, self.everything = workload, kind, everything
        self.items: deque[dict[str, Any]] = deque()
        self.dropped = 0
        self.ready = asyncio.Event()

    def offer(self, event: dict[str, Any]) -> None:
        if self.kind is not None and event["kind"] != self.kind:
            return
        name = event["workload"]
        if self.workload is not None and name != self.workload and not fnmatchcase(name, self.workload):
            return
        if len(self.items) >= WAITING:
            self.dropped += 1
            metrics.dropped.inc()
        else:
            self.items.append(event)
        self.ready.set()

    def take(self) -> list[dict[str, Any]]:
        """What is to be sent now."""
        self.ready.clear()
        frames: list[dict[str, Any]] = [{"ok": True, "result": item} for item in self.items]
        self.items.clear()
        if self.dropped:
            frames.append({"ok": True, "result": {"dropped": self.dropped}})
            self.dropped = 0
        return frames


class Server:
    """Listens from `listen` on; answers from `serve` on, so that a probe may connect while the worker still starts."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.handlers: dict[str, Handler] = {}
        self.subscribers: set[Subscriber] = set()
        self.connections: set[Connection] = set()
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """Bind the socket. Only the holder of DATA's lock may call this: it replaces a socket that was left behind."""
        (self.data / SOCKET).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        mask = os.umask(0o177)
        try:
            with short(self.data) as path:
                listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(CONNECTIONS)
        self._socket = listener

    async def serve(self, handlers: dict[str, Handler]) -> None:
        self.handlers = handlers
        self._server = await asyncio.start_unix_server(self._connected, sock=self._socket)

    async def close(self) -> None:
        """Stop listening, and end every connection."""
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        for connection in list(self.connections):
            connection.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1)
        (self.data / SOCKET).unlink(missing_ok=True)

    async def push(self, message: dict[str, Any], host: tuple[str, str] | None = None) -> None:
        """To every probe, or to that of this host (name and boot id)."""
        for connection in list(self.connections):
            if connection.probe and host in (None, connection.host):
                with suppress(ConnectionError):
                    await connection.send(message)

    def publish(self, payload: bytes) -> None:
        """A batch that came in, to those who watch. Costs nothing while nobody does."""
        if self.subscribers:
            for event in describe(payload):
                for subscriber in self.subscribers:
                    subscriber.offer(event)

    @property
    def verbatim(self) -> bool:
        return any(subscriber.everything for subscriber in self.subscribers)

    async def stream(self, connection: Connection, subscriber: Subscriber) -> None:
        """Send to one subscriber until it goes away."""
        before = self.verbatim
        self.subscribers.add(subscriber)
        if self.verbatim != before:
            await self.push({"push": "verbatim", "on": True})
        gone = asyncio.ensure_future(connection.reader.read(1))
        try:
            await connection.send({"ok": True})
            while not gone.done():
                ready = asyncio.ensure_future(subscriber.ready.wait())
                await asyncio.wait({ready, gone}, return_when=asyncio.FIRST_COMPLETED)
                ready.cancel()
                for item in subscriber.take():
                    connection.writer.write(frame(item))
                await connection.writer.drain()
        except ConnectionError:
            pass
        finally:
            gone.cancel()
            self.subscribers.discard(subscriber)
            if before != self.verbatim or (subscriber.everything and not self.verbatim):
                await self.push({"push": "verbatim", "on": self.verbatim})

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, uid, _ = _peer(writer)
        connection = Connection(reader, writer, uid, pid)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        self.connections.add(connection)
        try:
            await self._converse(connection)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.connections.discard(connection)
            if task is not None:
                self._tasks.discard(task)
            connection.close()

    async def _converse(self, connection: Connection) -> None:
        if connection.uid not in (0, os.geteuid()):
            metrics.refused.labels("uid").inc()
            log.warning("refused a connection of uid %d (pid %d)", connection.uid, connection.pid)
            await connection.refuse(f"uid {connection.uid} may not; root and the worker's user may")
            return
        if len(self.connections) > CONNECTIONS:
            metrics.refused.labels("too_many").inc()
            await connection.refuse(f"more than {CONNECTIONS} connections")
            return
        while True:
            try:
                request = await connection.receive()
            except Refusal as error:  # what follows cannot be read either
                metrics.refused.labels("broken").inc()
                await connection.refuse(str(error))
                return
            if request is None:
                return
            answer = await self._answer(connection, request)
            if answer is not None:
                await connection.send(answer)

    async def _answer(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any] | None:
        """None: the handler has answered itself."""
        handler = self.handlers.get(request["op"])
        if handler is None:
            metrics.refused.labels("unknown_op").inc()
            return {"ok": False, "error": f"no such request: {request['op']!r}"}
        try:
            return await handler(connection, request)
        except Refusal as error:
            return {"ok": False, "error": str(error)}
        except ConnectionError:
            raise
        except Exception as error:
            metrics.faults.labels("socket").inc()
            log.exception("request %s", request["op"])
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}


def _peer(writer: asyncio.StreamWriter) -> tuple[int, int, int]:
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("3i", credentials)
    return pid, uid, gid
