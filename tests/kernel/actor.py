"""The process whose calls the tests watch. It starts before the probes do: what they fork from would be left out.

Reads functions as source, runs them, answers with what they return. Run by tests/kernel/conftest.py.
"""

import contextlib
import ctypes
import json
import mmap
import os
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(nr: int, *args: Any) -> int:
    """The bare system call; -errno where it fails."""
    ready = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = int(_libc.syscall(nr, *ready))
    return -ctypes.get_errno() if result < 0 else result


def in_child(function: Callable[[], Any]) -> int:
    """Runs it in a fork; its process id."""
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            function()
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def answered(function: Callable[[], int]) -> tuple[int, int]:
    """Runs it in a fork; its process id and what it returned."""
    read, write = os.pipe()
    pid = in_child(lambda: os.write(write, struct.pack("q", function())))
    result = struct.unpack("q", os.read(read, 8))[0]
    os.close(read)
    os.close(write)
    return pid, result


def spawn(argv: list[bytes], env: dict[bytes, bytes] | None = None, path: bytes | None = None) -> int:
    """fork, execve, wait; the process id. By the bare call: Python refuses an empty argv[0]."""
    names = os.environb if env is None else env
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
    variables = (ctypes.c_char_p * (len(names) + 1))(*[k + b"=" + v for k, v in names.items()], None)
    return in_child(lambda: call(59, path or argv[0], arguments, variables))


OFFERED = {
    **{f.__name__: f for f in (call, in_child, answered, spawn)},
    **{m.__name__: m for m in (contextlib, ctypes, mmap, os, socket, struct, tempfile, threading, time)},
}
"""What a function may use beside its arguments."""


def main() -> None:
    names: dict[str, Any] = dict(OFFERED)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            exec(order["source"], names)
            args = [bytes.fromhex(a["hex"]) if isinstance(a, dict) else a for a in order["args"]]
            answer = {"value": names[order["name"]](*args)}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
