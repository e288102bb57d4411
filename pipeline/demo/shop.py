"""The demo's web shop: pages, uploads with random names, a database by network, and one hole.

Standard library only: it runs in its own container under the system's Python. `/price?formula=` evaluates what it is
given, which is the hole that the demo's attacker walks through.
"""

import http.server
import os
import secrets
import socket
import subprocess
import urllib.parse

DATA = "/var/lib/shop/uploads"
DATABASE = (os.environ.get("SHOP_DATABASE", "127.0.0.1"), 5432)
PAGES = {"/": "index.html", "/about": "about.html"}


class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        if url.path in PAGES:
            with open(f"/srv/shop/{PAGES[url.path]}", "rb") as page:
                self.answer(page.read())
        elif url.path == "/stock":
            with socket.create_connection(DATABASE, timeout=5) as database:
                database.sendall(url.query.encode() + b"\n")
                self.answer(database.recv(4096))
        elif url.path == "/price":
            formula = urllib.parse.parse_qs(url.query)["formula"][0]
            try:
                self.answer(repr(eval(formula)).encode())
            except Exception as error:
                self.answer(repr(error).encode(), 500)
        else:
            self.answer(b"no such page", 404)

    def do_POST(self) -> None:
        """An upload gets a random name and is packed by a short program, as image converters are."""
        name = f"{DATA}/{secrets.token_hex(8)}.txt"
        with open(name, "wb") as upload:
            upload.write(self.rfile.read(int(self.headers["Content-Length"])))
        subprocess.run(["/usr/bin/gzip", "-f", name], check=True)
        self.answer(name.encode())

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    os.makedirs(DATA, exist_ok=True)
    http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Shop).serve_forever()
