"""A stand-in for Slack on 127.0.0.1: takes messages as Slack does, shows them as text, and fails when told to.

    python -m pipeline.sinks.fake_slack --port 0            one JSON object per line: its address, then each request
    python -m pipeline.sinks.fake_slack --port 0 --print    the messages as a person would see them

POST /fault {"kind": "ratelimited", "times": 2, "retry_after": 1} makes the next requests fail.
"""

import argparse
import asyncio
import html
import itertools
import json
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Self

import msgspec
from aiohttp import web

from pipeline.sinks.text import visible

WIDTH = 46


class Fault(msgspec.Struct, frozen=True):
    kind: str
    """ratelimited | 500 | hang | drop (closed before it is taken) | deaf (taken, then closed without an answer) | any
    error of Slack's, such as invalid_auth."""
    retry_after: float = 1.0


class Message(msgspec.Struct):
    """One message as it stands in the channel."""

    method: str
    channel: str
    ts: str
    text: str
    """As a person sees it."""
    body: dict[str, Any]
    thread_ts: str | None = None
    broadcast: bool = False
    edits: int = 0


class FakeSlack:
    """`async with FakeSlack() as slack:` and give `slack.base_url` to `sinks.slack.base_url`."""

    def __init__(self, port: int = 0, token: str | None = None) -> None:
        self.port = port
        self.token = token
        """None: any token will do."""
        self.messages: list[Message] = []
        self.requests: list[tuple[str, str]] = []
        """(method, what became of it), refused ones too."""
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.log: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._changed = asyncio.Condition()
        self._ts = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self._release = asyncio.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/"

    @property
    def webhook_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/T0/B0/secret"

    def fail(self, kind: str, times: int = 1, retry_after: float = 1.0) -> None:
        self.faults.extend([Fault(kind, retry_after)] * times)

    async def until(self, condition: Any) -> None:
        """Wait until `condition()` holds; it is asked after each request."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def start(self) -> Self:
        app = web.Application(client_max_size=4 << 20)
        app.router.add_post("/api/{method}", self._api)
        app.router.add_post("/services/{path:.*}", self._webhook)
        app.router.add_post("/fault", self._fault)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        self._release.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def _api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        body = dict(await (request.json() if request.content_type == "application/json" else request.post()))
        for key in ("blocks",):
            if isinstance(body.get(key), str):
                body[key] = json.loads(body[key])
        fault = self._next_fault()
        if fault is not None and fault.kind != "deaf":
            return await self._suffer(request, method, fault)
        error = self._refusal(request, method, body)
        if error is not None:
            return await self._answer(method, error, {"ok": False, "error": error})
        taken = self._take(method, body)
        if fault is not None:
            return await self._suffer(request, method, fault)
        return await self._answer(method, "ok", {"ok": True, **taken})

    async def _webhook(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        fault = self._next_fault()
        if fault is not None and fault.kind != "deaf":
            return await self._suffer(request, "webhook", fault)
        error = problem(body)
        if error is not None:
            await self._note("webhook", error)
            return web.Response(status=400, text=error)
        self._post("webhook", "webhook", body)
        if fault is not None:
            return await self._suffer(request, "webhook", fault)
        await self._note("webhook", "ok")
        return web.Response(text="ok")

    async def _fault(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.fail(body["kind"], int(body.get("times", 1)), float(body.get("retry_after", 1.0)))
        return web.json_response({"ok": True})

    def _next_fault(self) -> Fault | None:
        return self.faults.popleft() if self.faults else self.always

    async def _suffer(self, request: web.Request, method: str, fault: Fault) -> web.StreamResponse:
        await self._note(method, fault.kind)
        if fault.kind == "ratelimited":
            headers = {"Retry-After": f"{fault.retry_after:g}"}
            return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)
        if fault.kind == "500":
            return web.Response(status=500, text="<html>upstream</html>", content_type="text/html")
        if fault.kind == "hang":
            await self._release.wait()
        if fault.kind in ("hang", "drop", "deaf"):
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if method == "webhook":
            return web.Response(status=403, text=fault.kind)
        return web.json_response({"ok": False, "error": fault.kind})

    def _refusal(self, request: web.Request, method: str, body: dict[str, Any]) -> str | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            return "not_authed"
        if self.token is not None and token != self.token:
            return "invalid_auth"
        if method == "auth.test":
            return None
        if method not in ("chat.postMessage", "chat.update"):
            return "unknown_method"
        if not body.get("channel"):
            return "channel_not_found"
        known = {message.ts for message in self.messages}
        if method == "chat.update" and body.get("ts") not in known:
            return "message_not_found"
        if body.get("thread_ts") and body["thread_ts"] not in known:
            return "thread_not_found"
        return problem(body)

    def _take(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        if method == "auth.test":
            return {
                "user": "wonted",
                "user_id": "U0FAKE",
                "team": "stand-in",
                "team_id": "T0FAKE",
                "url": self.base_url,
            }
        if method == "chat.postMessage":
            message = self._post(method, str(body["channel"]), body)
        else:
            message = next(message for message in self.messages if message.ts == body["ts"])
            message.body = message.body | body
            message.text = seen(message.body)
            message.edits += 1
            self._tell(message, method)
        return {"channel": message.channel, "ts": message.ts}

    def _post(self, method: str, channel: str, body: dict[str, Any]) -> Message:
        message = Message(
            method,
            channel,
            f"1700000000.{next(self._ts):06d}",
            seen(body),
            body,
            body.get("thread_ts"),
            bool(body.get("reply_broadcast")),
        )
        self.messages.append(message)
        self._tell(message, method)
        return message

    def _tell(self, message: Message, method: str) -> None:
        self.log.put_nowait(msgspec.to_builtins(message) | {"method": method})

    async def _answer(self, method: str, outcome: str, body: dict[str, Any]) -> web.Response:
        await self._note(method, outcome)
        return web.json_response(body)

    async def _note(self, method: str, outcome: str) -> None:
        self.requests.append((method, outcome))
        async with self._changed:
            self._changed.notify_all()


def problem(body: dict[str, Any]) -> str | None:
    """The error with which Slack would refuse these blocks; None: fine."""
    blocks = body.get("blocks") or []
    if not blocks and not body.get("text"):
        return "no_text"
    if len(blocks) > 50 or any(not isinstance(block, dict) or "type" not in block for block in blocks):
        return "invalid_blocks"
    if len(json.dumps(blocks, ensure_ascii=False)) > 13_000:
        return "msg_blocks_too_long"
    for block in blocks:
        text = block.get("text")
        limit = {"header": 150, "section": 3000}.get(block["type"], 0)
        if isinstance(text, dict) and not 0 < len(text.get("text", "")) <= limit:
            return "invalid_blocks"
        fields = block.get("fields", [])
        if len(fields) > 10 or any(not 0 < len(field.get("text", "")) <= 2000 for field in fields):
            return "invalid_blocks"
    return None


def seen(body: dict[str, Any]) -> str:
    """What a person sees of a message: the blocks, or the text where there are none."""
    return as_text(body["blocks"]) if body.get("blocks") else _lines(html.unescape(str(body.get("text", ""))))


def as_text(blocks: Sequence[dict[str, Any]]) -> str:
    """A message for a terminal, as a person would see it in Slack."""
    return "\n".join(line for block in blocks for line in _block(block))


def _block(block: dict[str, Any]) -> list[str]:
    kind = block.get("type")
    if kind == "rich_text":
        return _rich(block)
    if kind == "context":
        return [" ".join(_lines(element.get("text", "")) for element in block.get("elements", []))]
    if kind == "actions":
        return [" ".join(f"[{_lines(button['text']['text'])}]" for button in block.get("elements", []))]
    if kind == "divider":
        return ["-" * 2 * WIDTH]
    lines = [_lines(block["text"]["text"])] if block.get("text") else []
    cells = [": ".join(_lines(field["text"]).split("\n", 1)) for field in block.get("fields", [])]
    for left, right in itertools.zip_longest(cells[::2], cells[1::2], fillvalue=""):
        lines.append(f"{left:<{WIDTH}}  {right}".rstrip())
    return lines


def _rich(block: dict[str, Any]) -> list[str]:
    lines = []
    for element in block.get("elements", []):
        text = _lines("".join(part.get("text", "") for part in element.get("elements", [])))
        if element.get("type") == "rich_text_preformatted":
            lines += [f"  | {line}" for line in text.split("\n")]
        else:
            lines.append(text)
    return lines


def _lines(text: str) -> str:
    return "\n".join(visible(line) for line in text.split("\n"))


async def serve(port: int, show: bool) -> None:
    async with FakeSlack(port) as slack:
        if show:
            print(f"a stand-in for Slack at {slack.base_url}", flush=True)
        else:
            print(json.dumps({"base_url": slack.base_url, "webhook_url": slack.webhook_url}), flush=True)
        while True:
            message = await slack.log.get()
            if not show:
                print(json.dumps(message), flush=True)
                continue
            edited = " edited" if message["method"] == "chat.update" else ""
            thread = f" in the thread of {message['thread_ts']}" if message["thread_ts"] else ""
            print(f"\n[{message['channel']} {message['ts']}{edited}{thread}]\n{message['text']}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="fake_slack", description="A stand-in for Slack on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--print", action="store_true", dest="show", help="messages as text instead of JSON lines")
    args = parser.parse_args()
    try:
        asyncio.run(serve(args.port, args.show))
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    except OSError as error:
        print(f"fake_slack: cannot listen on 127.0.0.1:{args.port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
