"""The application of the mix: uploads, reports, orders, a cache, a partner; and a hole that runs what it is sent."""

import http.client
import json
import os
import random
import socket
import struct
import tempfile
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SETTINGS = json.loads(Path("/app/settings.json").read_text())
PASSWORD = Path("/run/secrets/db").read_text().strip()
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def pg(query: str) -> str:
    """One query over the wire protocol; what came back, as text."""
    with socket.create_connection(("127.0.0.1", 5432), 10) as s:
        body = struct.pack("!I", 196608) + b"user\0postgres\0database\0postgres\0\0"
        s.sendall(struct.pack("!I", len(body) + 4) + body)
        text = query.encode() + b"\0"
        s.sendall(b"Q" + struct.pack("!I", len(text) + 4) + text)
        got, ready = b"", 0
        while ready < 2:
            part = s.recv(65536)
            if not part:
                break
            got += part
            ready = got.count(b"Z\0\0\0\x05")
        s.sendall(b"X\0\0\0\4")
    return repr(got[-400:])


def redis(*words: str) -> str:
    with socket.create_connection(("127.0.0.1", 6379), 10) as s:
        s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
        return s.recv(65536).decode(errors="replace")


def partner(path: str) -> int:
    c = http.client.HTTPConnection("api.partner.example", 8080, timeout=10)
    c.request("GET", path)
    return c.getresponse().status


def upload(body: bytes) -> str:
    word = "".join(random.choice(LETTERS) for _ in range(random.randrange(5, 12)))
    name = random.choice(
        (f"{uuid.uuid4()}.jpg", f"{word}.png", f"IMG_{random.randrange(10000)}.jpeg", f"{word} (1).pdf")
    )
    fd, temporary = tempfile.mkstemp(dir="/data/uploads")
    os.write(fd, body)
    os.close(fd)
    os.chmod(temporary, 0o644)
    os.rename(temporary, f"/data/uploads/{name}")
    return name


def report() -> str:
    name = f"/data/reports/report-{time.strftime('%Y%m%d-%H%M%S')}-{random.randrange(10**6)}.csv"
    with tempfile.NamedTemporaryFile("w", delete=False) as f:
        for number in range(random.randrange(20, 200)):
            f.write(f"{number},{random.choice(LETTERS)},{random.random():.3f}\n")
    with open(f.name) as source, open(name, "w") as target:
        target.write(source.read())
    os.unlink(f.name)
    link = f"/data/.latest-{uuid.uuid4().hex[:6]}"
    os.symlink(name, link)
    os.replace(link, "/data/latest")
    return name


def thumbnails() -> None:
    while True:
        time.sleep(random.uniform(2, 6))
        for name in random.sample(os.listdir("/data/uploads"), 2) if len(os.listdir("/data/uploads")) > 2 else ():
            try:
                with open(f"/data/uploads/{name}", "rb") as f, open(f"/data/thumbs/{uuid.uuid4().hex}.png", "wb") as t:
                    t.write(f.read(100))
            except FileNotFoundError:
                pass
        for name in os.listdir("/data/thumbs")[:-100]:
            os.unlink(f"/data/thumbs/{name}")


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def answer(self, text: str, status: int = 200) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self) -> None:
        if self.path.startswith("/product"):
            pg(f"select count(*) from orders where item = {random.randrange(100)}")
            redis("SET", f"product:{random.randrange(1000)}", "x")
            self.answer(redis("GET", f"product:{random.randrange(1000)}"))
        elif self.path.startswith("/report"):
            self.answer(report())
        elif self.path.startswith("/health"):
            self.answer("ok")
        else:
            self.answer("no such page", 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path.startswith("/upload"):
            self.answer(upload(body))
        elif self.path.startswith("/order"):
            pg(f"insert into orders (item) values ({random.randrange(100)})")
            if random.random() < 0.3:
                partner("/rate")
            self.answer("ordered")
        elif self.path.startswith("/debug"):
            try:
                space = dict(globals())
                exec(body.decode(), space)
                self.answer(str(space.get("out", "done")))
            except BaseException as error:
                self.answer(f"{type(error).__name__}: {error}")

    def log_message(self, *words: object) -> None:
        pass


threading.Thread(target=thumbnails, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", 8000), Application).serve_forever()
