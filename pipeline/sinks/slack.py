"""Slack, by bot token (edits, threads) or by incoming webhook (neither). The only module that imports slack_sdk.

slack_sdk does not retry a 429 by itself, and hides the waiting inside the call where it does: here each attempt is one
request, and the outbox does the waiting.
"""

import asyncio
import logging
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from config.schema import Settings
from pipeline.alert import Alert
from pipeline.sinks import render
from pipeline.sinks.base import NOTHING, Bucket, Clock, Delivery, SinkConfigError, Told
from pipeline.sinks.sample import sample_alert

log = logging.getLogger("wonted.slack")
TIMEOUT = 10
"""Seconds for one request."""
REFUSED = {
    "invalid_auth": "the token is not valid; put a bot token (xoxb-...) into sinks.slack.token_file",
    "not_authed": "no token was sent; set sinks.slack.token_file",
    "account_inactive": "the token's account is gone; install the app again",
    "token_revoked": "the token was revoked; install the app again and replace sinks.slack.token_file",
    "token_expired": "the token expired; replace sinks.slack.token_file",
    "no_permission": "the app may not do this; it needs chat:write",
    "missing_scope": "the app needs the scope chat:write (and chat:write.public where it is not invited)",
    "not_allowed_token_type": "sinks.slack.token_file must hold a bot token (xoxb-...)",
    "channel_not_found": "no such channel, or a private one without the app: check sinks.slack.channel, invite the app",
    "not_in_channel": "invite the app to the channel: /invite @wonted",
    "is_archived": "the channel is archived; set another sinks.slack.channel",
    "channel_is_archived": "the channel is archived; make another webhook",
    "restricted_action": "the workspace does not let the app post there",
    "org_login_required": "the workspace is being moved; try later",
    "team_access_not_granted": "the app is not installed in that workspace",
    "ekm_access_denied": "the workspace's keys are suspended",
    "no_service": "the webhook was removed; make another and replace sinks.slack.webhook_file",
    "no_service_id": "the webhook was removed; make another and replace sinks.slack.webhook_file",
    "no_team": "the webhook's workspace is gone",
    "team_disabled": "the webhook's workspace is gone",
    "invalid_token": "the webhook's URL is not valid; check sinks.slack.webhook_file",
    "action_prohibited": "an administrator forbade the webhook",
    "posting_to_general_channel_denied": "the app may not post in the general channel",
    "user_not_found": "sinks.slack.channel names no user and no channel",
}
"""What a person must mend, and how. The alerts wait."""
PAYLOAD = {
    "invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long", "invalid_arguments", "no_text",
    "invalid_attachments", "too_many_attachments", "invalid_payload", "invalid_arg_value", "invalid_json",
}  # fmt: skip
"""Slack does not like the message: once more, as plain text."""
GONE = {"message_not_found", "thread_not_found", "cant_update_message", "edit_window_closed", "cannot_reply_to_message"}
"""The message that we would edit, or its thread, is no more: a new one."""
NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ClientConnectorDNSError, aiohttp.InvalidURL)


class SlackConfigError(SinkConfigError):
    """The settings cannot work; the text says which and what to do."""


class Slack:
    """One channel."""

    name = "slack"
    edits = True
    digests = True
    patience = 60.0

    def __init__(
        self, door: "Bot | Webhook | None", dry_run: bool = False, clock: Clock | None = None, fold: float = 30.0
    ) -> None:
        self.door = door
        self.dry_run = dry_run or door is None
        self.clock = clock or Clock()
        self.fold = fold
        self.counts: Counter[str] = Counter()
        self._bucket = Bucket(rate=1.0, burst=3)

    @classmethod
    def from_settings(cls, settings: Settings, data: Path) -> Self | None:
        config = settings.sinks.slack
        token = config.token or (_secret("sinks.slack.token_file", config.token_file) if config.token_file else None)
        if token:
            if not config.channel:
                raise SlackConfigError("sinks.slack.channel: needed with a token; give a channel id or #name")
            return cls(Bot(token, config.channel, config.base_url), config.dry_run, fold=settings.incidents.update)
        if config.webhook_file:
            url = _secret("sinks.slack.webhook_file", config.webhook_file)
            if not url.startswith(("https://", "http://")):
                raise SlackConfigError(f"sinks.slack.webhook_file: {config.webhook_file} does not hold a URL")
            return cls(Webhook(url), config.dry_run, fold=settings.incidents.update)
        return cls(None, True) if config.dry_run else None

    def wants(self, alert: Alert) -> bool:
        return self.dry_run or not alert.would_alert

    def pace(self, now: float) -> float:
        return 0.0 if self.dry_run else self._bucket.take(now)

    async def tell(self, alert: Alert, told: Told = NOTHING) -> Delivery:
        if self.dry_run or self.door is None:
            render.blocks(alert)
            self.counts["dry_run"] += 1
            return Delivery("sent")
        threads = self.door.threads
        if told.digested:
            done = Delivery("sent", ref=told.thread, shown=told.shown)
        elif told.message is not None:
            done = await self._edit(alert, told)
        else:
            done = await self._first(alert, told)
        if not done.ok or done.ref is None:
            return done
        if alert.escalates and (told.message is not None or told.digested):
            note = render.short(alert)
            said = await self._send(note, render.headline(alert), self._thread(told, done), broadcast=True)
            if not said.ok:
                return _partly(said, done, done.shown)
        return await self._parts(alert, told, done) if threads or alert.others else done

    def fit(self, alerts: Sequence[Alert]) -> int:
        return render.digest_fit(alerts)

    async def digest(self, alerts: Sequence[Alert], told: Told = NOTHING) -> Delivery:
        if self.dry_run or self.door is None:
            self.counts["dry_run"] += len(alerts)
            return Delivery("sent")
        blocks, text = render.digest(alerts, told.again)
        return await self._send(blocks, text, told.thread, root=told.thread is None)

    async def close(self) -> None:
        return None

    async def _first(self, alert: Alert, told: Told) -> Delivery:
        assert self.door is not None
        joins = told.thread is not None
        blocks = (
            render.short(alert, told.again) if joins and not self.door.threads else render.blocks(alert, told.again)
        )
        text = render.headline(alert)
        plain = render.fallback(alert, told.again)
        return await self._send(
            blocks, text, told.thread, broadcast=joins and alert.escalates, plain=plain, root=not joins
        )

    async def _edit(self, alert: Alert, told: Told) -> Delivery:
        assert self.door is not None and told.message is not None
        if not self.door.threads:
            return Delivery("sent", ref=told.message, shown=told.shown)
        body = _body(render.blocks(alert), render.headline(alert))
        done = await self.door.update(told.message, body)
        if not done.ok and done.error in PAYLOAD:
            done = await self.door.update(told.message, _body([], render.fallback(alert)))
        if not done.ok and done.error in GONE:
            return await self._first(alert, Told(again=told.again))
        if not done.ok:
            return _partly(_judge(done), Delivery("sent", ref=told.message), told.shown)
        return Delivery("sent", ref=told.message, shown=told.shown)

    async def _parts(self, alert: Alert, told: Told, done: Delivery) -> Delivery:
        """Into the thread: the whole of a command that was cut, and the commands that joined since."""
        assert self.door is not None
        thread = self._thread(told, done)
        whole = render.whole(alert) if self.door.threads and not told.digested else []
        shown = done.shown
        while shown < len(whole):
            said = await self._send(whole[shown], "The whole command", thread, turn=True)
            if not said.ok:
                return _partly(said, done, shown)
            shown += 1
        while shown < len(whole) + len(alert.others):
            blocks, text, fit = render.reply(alert, alert.others[shown - len(whole) :], told.again)
            said = await self._send(blocks, text, thread, turn=True)
            if not said.ok:
                return _partly(said, done, shown)
            shown += fit
        return Delivery("sent", ref=done.ref, root=done.root, shown=shown)

    def _thread(self, told: Told, done: Delivery) -> str | None:
        return told.thread or done.ref

    async def _send(
        self,
        blocks: list[render.Block],
        text: str,
        thread: str | None,
        *,
        broadcast: bool = False,
        plain: str | None = None,
        root: bool = False,
        turn: bool = False,
    ) -> Delivery:
        """One message. Whatever Slack objects to in the blocks, the words still go."""
        assert self.door is not None
        if turn:
            await self._turn()
        to = self._reply_to(thread, broadcast)
        done = await self.door.post(_body(blocks, text) | to)
        if not done.ok and done.error in GONE and to:
            root = True
            done = await self.door.post(_body(blocks, text))
        if not done.ok and done.error in PAYLOAD:
            log.warning("slack: %s; once more as plain text", done.error)
            done = await self.door.post(_body([], plain or text) | to)
            if not done.ok and done.error in PAYLOAD:
                return Delivery("dead", error=done.error)
        done = _judge(done)
        return Delivery(done.state, done.error, done.after, done.refused, done.ref, root, 0)

    def _reply_to(self, thread: str | None, broadcast: bool) -> dict[str, Any]:
        if thread is None or self.door is None or not self.door.threads:
            return {}
        return {"thread_ts": thread.partition(":")[2]} | ({"reply_broadcast": True} if broadcast else {})

    async def _turn(self) -> None:
        """Wait for this channel's next slot."""
        while (wait := self._bucket.take(self.clock.now())) > 0:
            await self.clock.wait(asyncio.Event(), wait)


class Bot:
    """chat.postMessage and chat.update; a message's name is "channel:ts"."""

    threads = True

    def __init__(self, token: str, channel: str, base_url: str, timeout: float = TIMEOUT) -> None:
        self.channel = channel
        url = base_url.rstrip("/") + "/"
        # timeout: an int by its annotation, a float as far as aiohttp is concerned.
        self.client = AsyncWebClient(token=token, base_url=url, timeout=timeout, retry_handlers=[])  # type: ignore[arg-type]

    async def post(self, body: Mapping[str, Any]) -> Delivery:
        return await self._call("chat.postMessage", {"channel": self.channel, **body})

    async def update(self, ref: str, body: Mapping[str, Any]) -> Delivery:
        channel, _, ts = ref.partition(":")
        kept = {key: value for key, value in body.items() if key in ("blocks", "text", "parse")}
        return await self._call("chat.update", {"channel": channel, "ts": ts, **kept})

    async def _call(self, method: str, body: dict[str, Any]) -> Delivery:
        try:
            answer = await self.client.api_call(method, json=body)
        except SlackApiError as error:
            return _answered(error.response)
        except NEVER_SENT as error:
            return Delivery("retry", error=f"cannot reach Slack: {error}")
        except TimeoutError:
            return Delivery("unknown", error="no answer from Slack")
        except (aiohttp.ClientError, OSError) as error:
            return Delivery("unknown", error=f"the connection to Slack broke: {type(error).__name__}")
        return Delivery("sent", ref=f"{answer.get('channel', self.channel)}:{answer.get('ts', '')}")


class Webhook:
    """An incoming webhook: it only posts."""

    threads = False

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self.client = AsyncWebhookClient(url, timeout=timeout, retry_handlers=[])  # type: ignore[arg-type]

    async def post(self, body: Mapping[str, Any]) -> Delivery:
        body = {key: value for key, value in body.items() if key != "parse"}
        try:
            answer = await self.client.send_dict(dict(body))
        except NEVER_SENT as error:
            return Delivery("retry", error=f"cannot reach Slack: {type(error).__name__}")
        except TimeoutError:
            return Delivery("unknown", error="no answer from Slack")
        except (aiohttp.ClientError, OSError) as error:
            return Delivery("unknown", error=f"the connection to Slack broke: {type(error).__name__}")
        if answer.status_code == 200:
            return Delivery("sent", ref="webhook")
        return _status(answer.status_code, answer.headers, answer.body.strip()[:100])

    async def update(self, ref: str, body: Mapping[str, Any]) -> Delivery:
        raise NotImplementedError("a webhook's messages cannot be edited")


def test(settings: Settings) -> Delivery:
    """Post the sample alert, once. Raises SlackConfigError when nothing is configured."""
    sink = Slack.from_settings(settings, Path("."))
    if sink is None:
        raise SlackConfigError("Slack is not configured: set sinks.slack.token_file and channel, or webhook_file")
    return asyncio.run(sink.tell(sample_alert()))


def _body(blocks: list[render.Block], text: str) -> dict[str, Any]:
    """`text` is escaped; the switches keep Slack from finding links, names and markup in it all the same."""
    body: dict[str, Any] = {
        "text": text,
        "unfurl_links": False,
        "unfurl_media": False,
        "mrkdwn": False,
        "parse": "none",
    }
    return body | ({"blocks": blocks} if blocks else {})


def _answered(response: Any) -> Delivery:
    """What Slack says when it says no. A proxy's page of HTML has only a status."""
    status: int = getattr(response, "status_code", 0) or getattr(response, "status", 0)
    data = getattr(response, "data", None)
    error = data.get("error") if isinstance(data, dict) else None
    return _status(status, getattr(response, "headers", {}), error or f"HTTP {status}")


def _status(status: int, headers: Mapping[str, Any], error: str) -> Delivery:
    if status == 429 or error in ("ratelimited", "rate_limited", "message_limit_exceeded"):
        return Delivery("retry", error="ratelimited", after=_retry_after(headers))
    if error in REFUSED:
        return Delivery("retry", error=f"{error}: {REFUSED[error]}", refused=True)
    if error in PAYLOAD or error in GONE:
        return Delivery("dead", error=error)
    if status in (401, 403, 404, 410):
        return Delivery("retry", error=f"Slack refuses: HTTP {status} {error}", refused=True)
    if status == 400:
        return Delivery("dead", error="invalid_payload")
    return Delivery("retry", error=error if str(status) in error else f"{error} (HTTP {status})")


def _judge(done: Delivery) -> Delivery:
    """A message that is gone can only be tried anew."""
    return Delivery("retry", error=done.error) if done.error in GONE else done


def _partly(said: Delivery, done: Delivery, shown: int) -> Delivery:
    """The message stands but something that belongs to it does not yet: keep its name for the next attempt."""
    return Delivery(said.state, said.error, said.after, said.refused, done.ref, done.root, shown)


def _retry_after(headers: Mapping[str, Any]) -> float:
    for key, value in headers.items():
        if key.lower() == "retry-after":
            value = value[0] if isinstance(value, list) else value
            try:
                return min(3600.0, max(1.0, float(value)))
            except (TypeError, ValueError):
                return 30.0
    return 30.0


def _secret(setting: str, path: str) -> str:
    try:
        mode = os.stat(path).st_mode
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise SlackConfigError(f"{setting}: cannot read {path}: {reason}") from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        log.warning("%s: every user of this machine can read %s; chmod 600 %s", setting, path, path)
    if not text or any(char.isspace() for char in text) or not text.isascii():
        raise SlackConfigError(f"{setting}: {path} must hold one word and nothing else")
    return text
