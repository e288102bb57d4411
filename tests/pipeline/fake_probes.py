"""Stands in for `python -m probes` where the kernel does not matter. What it does is said by FAKE_PROBE, a JSON object:

exit: exit code, at once | missing: names of probes that are not attached | die: end by SIGKILL after the first report,
the first time | batch: sends one, at the end, when told to stop.
"""

import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import msgspec

ALL = ("exec", "fork", "exit", "cgroup", "file", "network", "dns", "privilege")


def main() -> int:
    orders = json.loads(sys.stdin.readline())
    plan = json.loads(os.environ["FAKE_PROBE"])
    if "exit" in plan:
        print("wonted: cannot see: no BTF; use another kernel", file=sys.stderr)
        return int(plan["exit"])
    link = socket.socket(socket.AF_UNIX)
    link.connect(orders["socket"])

    def ask(message: dict[str, Any]) -> Any:
        body = msgspec.msgpack.encode(message)
        link.sendall(struct.pack("<I", len(body)) + body)
        (length,) = struct.unpack("<I", link.recv(4, socket.MSG_WAITALL))
        return msgspec.msgpack.decode(link.recv(length, socket.MSG_WAITALL))

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ask({"op": "hello", "role": "probe"})
    states: dict[str, Any] = {name: {"attached": True, "error": None} for name in ALL}
    states |= {name: {"attached": False, "error": "no such hook"} for name in plan.get("missing", [])}
    rights = {"holds": ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"], "could_get": [], "no_new_privs": True}
    ask({"op": "state", "probes": states, "rights": rights, "lost": {}, "rates": {"records": 7}})
    died = Path(orders["state_dir"], "died")
    if plan.get("die") and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    signal.sigwait({signal.SIGTERM})
    if "batch" in plan:
        ask({"op": "batch", "partition": plan["partition"], "payload": bytes.fromhex(plan["batch"])})
    Path(orders["state_dir"], "ended").write_text("in order")
    return 0


if __name__ == "__main__":
    sys.exit(main())
