"""Everything outside the mix, in a network namespace of its own: clients, a resolver, a partner, an attacker's servers.

Started as a process with the path of the mix's network namespace; speaks JSON lines, as the demo's town does. In:
{"load": requests per second}; {"ask": path, "method", "body", "from"}. Out: an answer each, with "served" and "failed".
"""

import fcntl
import http.client
import json
import os
import random
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

from pipeline.demo.network import CLONE_NEWNET, cable, die_with_parent, inside, unshare, up
from pipeline.demo.town import exchange
from tests.live.names import ATTACKER, CLIENTS, GATEWAY, METADATA, MIX, NAMES, PARTNERS

SIOCADDRT, RTF_UP_GATEWAY = 0x890B, 3


def default_route(control: socket.socket, gateway: str) -> None:
    def address(ip: str) -> bytes:
        return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(ip))

    entry = struct.pack(
        "@L16s16s16sHhLPhPLLH", 0, address("0.0.0.0"), address(gateway), address("0.0.0.0"), RTF_UP_GATEWAY, 0, 0, 0, 0,
        0, 0, 0, 0,
    )  # fmt: skip
    fcntl.ioctl(control, SIOCADDRT, entry)


def wire(namespace: str) -> None:
    mix = os.open(namespace, os.O_RDONLY)
    unshare(CLONE_NEWNET)
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    with inside(here) as control:
        up(control, "lo")
    cable("eth0", "eth0", mix)
    with inside(here) as control:
        for number, address in enumerate((GATEWAY, *PARTNERS, ATTACKER, METADATA, *CLIENTS)):
            up(control, f"eth0:{number}" if number else "eth0", address)
    with inside(mix) as control:
        up(control, "lo")
        up(control, "eth0", MIX)
        default_route(control, GATEWAY)


class Resolver(socketserver.BaseRequestHandler):
    """Answers A questions for NAMES, with one of its addresses at random; NXDOMAIN for the rest."""

    def handle(self) -> None:
        asked, sock = self.request
        labels, at = [], 12
        while asked[at]:
            labels.append(asked[at + 1 : at + 1 + asked[at]].decode("ascii", "replace"))
            at += 1 + asked[at]
        question = asked[12 : at + 5]
        kind = struct.unpack("!H", asked[at + 1 : at + 3])[0]
        addresses = NAMES.get(".".join(labels).lower())
        answer = b""
        if addresses and kind == 1:
            answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(random.choice(addresses))
        code = 0x8180 if addresses else 0x8183
        head = asked[:2] + struct.pack("!HHHHH", code, 1, 1 if answer else 0, 0, 0)
        sock.sendto(head + question + answer, self.client_address)


class Partner(BaseHTTPRequestHandler):
    """The partner, and whatever else is asked for over HTTP."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"1.07\n")

    def log_message(self, *words: object) -> None:
        pass


class Sink(socketserver.BaseRequestHandler):
    """Takes the call and says nothing."""

    def handle(self) -> None:
        self.request.settimeout(3)
        try:
            self.request.recv(4096)
        except OSError:
            pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 64


TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE


def ask(
    method: str, path: str, body: bytes | None = None, tls: bool = False, client: str | None = None
) -> tuple[int, str]:
    source = (client or random.choice(CLIENTS), 0)
    if tls:
        mix: http.client.HTTPConnection = http.client.HTTPSConnection(
            MIX, 8443, timeout=20, context=TRUSTING, source_address=source
        )
    else:
        mix = http.client.HTTPConnection(MIX, 8080, timeout=20, source_address=source)
    return exchange(mix, method, path, body)


class Clients:
    """Requests of all kinds that the mix is made for, at a rate that may change."""

    def __init__(self, threads: int = 8) -> None:
        self.rate = 0.0
        self.served = self.failed = 0
        self._lock = threading.Lock()
        for _ in range(threads):
            threading.Thread(target=self._run, args=(threads,), daemon=True).start()

    def _run(self, threads: int) -> None:
        while True:
            if self.rate <= 0:
                time.sleep(0.2)
                continue
            time.sleep(min(5.0, random.expovariate(self.rate / threads)))
            try:
                status = self.one()
            except OSError:
                status = 0
            with self._lock:
                self.served += 200 <= status < 500
                self.failed += not 200 <= status < 500

    def one(self) -> int:
        kind, tls = random.random(), random.random() < 0.2
        if kind < 0.15:
            return ask("POST", "/upload", os.urandom(random.randrange(100, 60_000)), tls)[0]
        if kind < 0.3:
            return ask("POST", "/order", b"", tls)[0]
        if kind < 0.5:
            return ask("GET", f"/product?id={random.randrange(1000)}", None, tls)[0]
        if kind < 0.6:
            return ask("GET", "/report", None, tls)[0]
        if kind < 0.63:
            return ask("PUT", f"/documents/{random.randrange(300)}/{random.randrange(10**6)}.txt", os.urandom(900))[0]
        if kind < 0.66:
            return ask("GET", f"/missing/{random.randrange(10**6)}", None, tls)[0]
        page = random.choice(("/", "/", "/style.css", *(f"/page{n}.html" for n in range(12))))
        return ask("GET", page, None, tls)[0]


def main() -> None:
    die_with_parent()
    wire(sys.argv[1])
    servers: list[Any] = [socketserver.ThreadingUDPServer((GATEWAY, 53), Resolver)]
    for address in PARTNERS:
        servers.append(Server((address, 8080), Partner))
    for port in (80, 8080):
        servers.append(Server((ATTACKER, port), Partner))
    servers += [Server((ATTACKER, port), Sink) for port in (443, 4444, 6379, 22)]
    servers.append(Server((PARTNERS[0], 22), Sink))
    servers.append(Server((METADATA, 80), Partner))
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    clients = Clients()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        answer: dict[str, object] = {}
        if "load" in message:
            clients.rate = float(message["load"])
        if "ask" in message:
            try:
                body = message.get("body")
                answer["status"], answer["body"] = ask(
                    message.get("method", "GET"), message["ask"], body.encode() if body else None
                )
            except OSError as error:
                answer["status"], answer["body"] = 0, str(error)
        answer |= {"served": clients.served, "failed": clients.failed}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
