"""Everything outside the demo's shop, in a network namespace of its own: customers, database, an attacker's servers.

Started as a process; speaks JSON lines. First line out: {"netns": path}, the shop's side of the cable. Lines in:
{"get": "/path"} is asked of the shop and answered {"status", "body", "asked", "answered"} (ns since the epoch);
{"traffic": bool} starts and stops the customers. Each answer has "served" and "failed". End of input ends it.
"""

import http.client
import json
import os
import random
import socketserver
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from pipeline.demo.network import CLONE_NEWNET, cable, die_with_parent, inside, unshare, up

SHOP, CUSTOMERS, DATABASE, DEPOT, CONTROL = (f"10.213.77.{host}" for host in (2, 1, 5, 9, 13))
"""The shop; who visits it; the database it knows; the attacker's download server; the attacker's control server."""


def wire(namespace: str | None) -> int:
    """Join the shop's namespace (a new one if none is named) and a new one of this process; the shop's descriptor."""
    if namespace is None:
        unshare(CLONE_NEWNET)
    shop = os.open(namespace or "/proc/thread-self/ns/net", os.O_RDONLY)
    unshare(CLONE_NEWNET)
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    cable("eth0", "eth0", shop)
    with inside(shop) as control:
        up(control, "lo")
        up(control, "eth0", SHOP)
    with inside(here) as control:
        up(control, "lo")
        for number, address in enumerate((CUSTOMERS, DATABASE, DEPOT, CONTROL)):
            up(control, f"eth0:{number}" if number else "eth0", address)
    os.close(here)
    return shop


class Answer(socketserver.BaseRequestHandler):
    """The database: one line in, one line out."""

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(f"{random.randrange(100)} in stock".encode())


class Depot(socketserver.StreamRequestHandler):
    """The attacker's download server: whatever is asked, it sends the program."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        body = Path("/usr/bin/sleep").read_bytes()
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


class Control(socketserver.BaseRequestHandler):
    """The attacker's control server: it only takes the call."""

    def handle(self) -> None:
        self.request.sendall(b"ok\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def ask(method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    return exchange(http.client.HTTPConnection(SHOP, 8080, timeout=20), method, path, body)


def exchange(server: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> tuple[int, str]:
    """One request on a connection of its own: status and text."""
    try:
        server.request(method, path, body)
        response = server.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        server.close()


class Customers(threading.Thread):
    """About ten requests a second, of all kinds that the shop is made for."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.open = threading.Event()
        self.served = self.failed = 0

    def run(self) -> None:
        while self.open.wait():
            kind = random.random()
            try:
                if kind < 0.2:
                    status, _ = ask("POST", "/upload", os.urandom(random.randrange(100, 3000)))
                elif kind < 0.4:
                    status, _ = ask("GET", f"/stock?item={random.randrange(50)}")
                elif kind < 0.5:
                    status, _ = ask("GET", f"/price?formula={random.randrange(9)}*{random.randrange(9)}")
                else:
                    status, _ = ask("GET", random.choice(("/", "/", "/about")))
            except OSError:
                status = 0
            self.served += status == 200
            self.failed += status != 200
            time.sleep(random.expovariate(10))


def main() -> None:
    die_with_parent()
    shop = wire(sys.argv[1] if len(sys.argv) > 1 else None)
    for address, port, handler in ((DATABASE, 5432, Answer), (DEPOT, 8000, Depot), (CONTROL, 4444, Control)):
        threading.Thread(target=Server((address, port), handler).serve_forever, daemon=True).start()
    customers = Customers()
    customers.start()
    print(json.dumps({"netns": f"/proc/{os.getpid()}/fd/{shop}"}), flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        answer: dict[str, object] = {}
        if "get" in message:
            answer["asked"] = time.time_ns()
            try:
                answer["status"], answer["body"] = ask("GET", message["get"])
            except OSError as error:
                answer["status"], answer["body"] = 0, str(error)
            answer["answered"] = time.time_ns()
        if "traffic" in message:
            (customers.open.set if message["traffic"] else customers.open.clear)()
        answer |= {"served": customers.served, "failed": customers.failed}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # the demo was interrupted
        main()
