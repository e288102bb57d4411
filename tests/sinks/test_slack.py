"""Slack, against the stand-in that ships: whatever it does, each alert arrives and nobody waits."""

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from config.schema import Settings
from pipeline.alert import Alert, Other
from pipeline.sinks.base import Clock, Sink, Told
from pipeline.sinks.fake_slack import FakeSlack, Message
from pipeline.sinks.jsonlines import JsonLines
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.sample import sample_alert
from pipeline.sinks.slack import Bot, Slack, SlackConfigError, Webhook
from pipeline.sinks.slack import test as post_sample
from tests.sinks.running import running

Make = Callable[..., Alert]
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack(token="xoxb-1") as fake:
        yield fake


def bot(slack: FakeSlack, clock: Clock | None = None, timeout: float = 5.0) -> Slack:
    return Slack(Bot("xoxb-1", "C1", slack.base_url, timeout=timeout), clock=clock)


def webhook(slack: FakeSlack, clock: Clock | None = None, timeout: float = 5.0) -> Slack:
    return Slack(Webhook(slack.webhook_url, timeout=timeout), clock=clock)


async def drained(outbox: Outbox) -> None:
    async with asyncio.timeout(30):
        await outbox.drained()


def about(slack: FakeSlack, alert: Alert) -> list[Message]:
    return [message for message in slack.messages if alert.id in message.text]


async def test_an_alert_is_one_request_with_markup_off(slack: FakeSlack, alert: Make) -> None:
    from pipeline.sinks import render

    delivery = await bot(slack).tell(alert(1))

    [message] = slack.messages
    assert {
        "channel": "C1",
        "blocks": render.blocks(alert(1)),
        "text": render.headline(alert(1)),
        "unfurl_links": False,
        "unfurl_media": False,
        "mrkdwn": False,
        "parse": "none",
    } == message.body
    assert ("sent", f"C1:{message.ts}", True) == (delivery.state, delivery.ref, delivery.root)


async def test_seen_again_edits_the_message(slack: FakeSlack, alert: Make) -> None:
    sink = bot(slack)
    first = await sink.tell(alert(1))
    await sink.tell(alert(1, seen=7, update=True), Told(message=first.ref, thread=first.ref))

    [message] = slack.messages
    assert 1 == message.edits and "seen 7 x" in message.text


async def test_what_joins_is_a_reply_and_what_is_worse_goes_to_the_channel(slack: FakeSlack, alert: Make) -> None:
    sink = bot(slack)
    first = await sink.tell(alert(1))
    await sink.tell(alert(2), Told(thread=first.ref))
    await sink.tell(alert(3, escalates=True, severity="critical"), Told(thread=first.ref))

    root, joined, worse = slack.messages
    assert [(None, False), (root.ts, False), (root.ts, True)] == [
        (message.thread_ts, message.broadcast) for message in (root, joined, worse)
    ]
    assert "(critical)" in worse.text


async def test_every_command_that_joined_can_be_read_in_the_thread(slack: FakeSlack, alert: Make) -> None:
    """Each once: the second edit only brings what is new."""
    sink = bot(slack)
    others = tuple(Other(n, f"sh -c cmd{n}", ("sh", "-c", f"cmd{n}")) for n in range(4))
    first = await sink.tell(alert(1))
    second = await sink.tell(alert(1, others=others[:3], seen=4), Told(first.ref, first.ref, first.shown))
    third = await sink.tell(alert(1, others=others, seen=5), Told(first.ref, first.ref, second.shown))

    _, reply, later = slack.messages
    assert all(f"sh -c cmd{n}" in reply.text for n in range(3)) and "cmd3" not in reply.text
    assert "cmd3" in later.text and "cmd2" not in later.text
    assert (3, 4) == (second.shown, third.shown)


async def test_a_command_that_was_cut_is_whole_in_the_thread(slack: FakeSlack, alert: Make) -> None:
    long = alert(1, argv=("/bin/sh", "-c", "x" * 3000))

    await bot(slack).tell(long)

    root, whole = slack.messages
    assert long.command not in root.text and long.command in whole.text and whole.thread_ts == root.ts


async def test_a_webhook_posts_short_messages_and_never_repeats(slack: FakeSlack, alert: Make) -> None:
    sink = webhook(slack)
    first = await sink.tell(alert(1))
    await sink.tell(alert(1, seen=9), Told(first.ref, first.ref))
    await sink.tell(alert(2), Told(thread=first.ref))
    await sink.tell(alert(1, seen=10, others=(Other(1, "cat x", ("cat", "x")),)), Told(first.ref, first.ref))

    full, joined, other = slack.messages
    assert "Process tree" in full.text and "Process tree" not in joined.text and "cat x" in other.text
    for part in ("Container: checkout", "Container IP: 10.244.1.23", "Remote: none", "/bin/sh -c id"):
        assert part in joined.text


@pytest.mark.parametrize("door", [bot, webhook])
@pytest.mark.parametrize(
    ("kind", "twice"),
    [("ratelimited", False), ("500", False), ("drop", True), ("deaf", True), ("hang", True), ("invalid_auth", False)],
)
async def test_whatever_slack_does_each_alert_arrives(
    kind: str, twice: bool, door: Callable[..., Slack], slack: FakeSlack, alert: Make, tmp_path: Path, clock: Clock
) -> None:
    """Exactly once where Slack said no; at least once, and then marked, where it said nothing. Files do not wait."""
    slack.fail(kind, times=2)
    path = tmp_path / "alerts.jsonl"
    sinks: list[Sink] = [door(slack, clock, timeout=0.2 if kind == "hang" else 10.0), JsonLines(str(path))]
    outbox = Outbox(tmp_path / "outbox.db", sinks, clock=clock)

    async with running(outbox):
        outbox.put([alert(n, incident=f"in_{n}") for n in range(3)])
        await drained(outbox)

    counts = [len(about(slack, alert(n))) for n in range(3)]
    assert [1, 1] == counts[1:] and (counts[0] == 1 if kind != "deaf" else counts[0] == 3)
    assert twice == ("possibly told twice" in about(slack, alert(0))[-1].text)
    assert not any("possibly" in message.text for n in (1, 2) for message in about(slack, alert(n)))
    assert 3 == len(path.read_bytes().splitlines())


async def test_slack_down_holds_up_nothing_and_loses_nothing(alert: Make, tmp_path: Path, clock: Clock) -> None:
    """Told while nobody listens; told when somebody does, by another process, after a restart."""
    slack = FakeSlack()
    await slack.start()
    await slack.stop()
    path = tmp_path / "alerts.jsonl"
    outbox = Outbox(tmp_path / "outbox.db", [bot(slack, clock), JsonLines(str(path))], clock=clock)
    async with running(outbox):
        outbox.put([alert(n) for n in range(5)])
        async with asyncio.timeout(10):
            while outbox.counts["slack", "retry"] < 3 or outbox.counts["json", "sent"] < 5:
                outbox._progress.clear()
                await outbox._progress.wait()
    await outbox.close()
    assert 5 == outbox_depth(tmp_path) and "cannot reach Slack" in str(outbox.problems["slack"])

    async with slack:
        again = Outbox(tmp_path / "outbox.db", [bot(slack, clock)], clock=clock)
        async with running(again):
            await drained(again)

    assert [1] * 5 == [len(about(slack, alert(n))) for n in range(5)]


def outbox_depth(tmp_path: Path) -> int:
    return Outbox(tmp_path / "outbox.db").depth()


async def test_a_refusal_says_what_to_mend_and_keeps_the_alerts(
    slack: FakeSlack, alert: Make, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    slack.always = None
    slack.fail("not_in_channel")
    outbox = Outbox(tmp_path / "outbox.db", [bot(slack, clock)], clock=clock)

    async with running(outbox):
        outbox.put([alert(1)])
        await drained(outbox)

    assert "invite the app to the channel" in caplog.text and alert(1).command in caplog.text
    assert 1 == len(about(slack, alert(1)))


async def test_blocks_that_slack_does_not_like_go_as_plain_text(slack: FakeSlack, alert: Make) -> None:
    slack.fail("invalid_blocks")
    delivery = await bot(slack).tell(alert(1, argv=("sh", "<!channel>")))

    [message] = slack.messages
    assert delivery.ok and "blocks" not in message.body
    for part in ("checkout - 3f2a9c0d4e5f", "Container IP: 10.244.1.23", "Remote: none", "sh '<!channel>'"):
        assert part in message.text
    assert "<" not in message.body["text"]


async def test_what_slack_never_takes_is_dead_and_not_tried_for_ever(slack: FakeSlack, alert: Make) -> None:
    slack.fail("invalid_blocks", times=2)

    assert "dead" == (await bot(slack).tell(alert(1))).state


async def test_a_message_that_somebody_deleted_is_posted_anew(slack: FakeSlack, alert: Make) -> None:
    sink = bot(slack)
    gone = await sink.tell(alert(1, seen=2), Told("C1:1.1", "C1:1.1"))
    reply = await sink.tell(alert(2), Told(thread="C1:1.1"))

    assert gone.ok and reply.ok and [None, None] == [message.thread_ts for message in slack.messages]


async def test_a_half_told_alert_is_not_posted_again(
    slack: FakeSlack, alert: Make, tmp_path: Path, clock: Clock
) -> None:
    """The message stood, the reply did not: the next attempt only brings the reply."""
    other = (Other(1, "cat x", ("cat", "x")),)
    sink = bot(slack, clock)
    outbox = Outbox(tmp_path / "outbox.db", [sink], clock=clock)
    slack.faults.clear()
    post = sink.door.post  # type: ignore[union-attr]

    async def first_only(body: dict[str, object]) -> object:
        if "thread_ts" in body and not slack.requests.count(("chat.postMessage", "500")):
            slack.fail("500")
        return await post(body)

    sink.door.post = first_only  # type: ignore[method-assign, union-attr]
    async with running(outbox):
        outbox.put([alert(1, others=other, seen=2)])
        await drained(outbox)

    assert [None, slack.messages[0].ts] == [message.thread_ts for message in slack.messages]


async def test_a_burst_keeps_to_one_message_a_second(
    slack: FakeSlack, alert: Make, tmp_path: Path, clock: Clock
) -> None:
    outbox = Outbox(tmp_path / "outbox.db", [bot(slack, clock)], clock=clock)
    before = clock.now()
    async with running(outbox):
        outbox.put([alert(n) for n in range(15)])
        await drained(outbox)

    assert clock.now() - before >= 12.0 and 15 == len(slack.messages)


async def test_a_crowd_after_an_outage_names_every_command(
    slack: FakeSlack, alert: Make, tmp_path: Path, clock: Clock
) -> None:
    outbox = Outbox(tmp_path / "outbox.db", [bot(slack, clock)], clock=clock)
    alerts = [
        alert(n, argv=("/bin/cmd", str(n)), workload=f"w{n % 3}", incident=f"in_{n % 3}",
              severity="critical" if n == 50 else "low")
        for n in range(60)
    ]  # fmt: skip
    outbox.put(alerts)
    async with running(outbox):
        await drained(outbox)

    text = "\n".join(message.text for message in slack.messages)
    assert all(f"/bin/cmd {n}\n" in f"{text}\n" for n in range(60)) and len(slack.messages) <= 6
    assert "(critical)" in slack.messages[0].text


async def test_what_would_alert_and_a_dry_run_post_nothing(slack: FakeSlack, alert: Make) -> None:
    sink = Slack(Bot("xoxb-1", "C1", slack.base_url), dry_run=True)

    assert not bot(slack).wants(alert(1, would_alert=True))
    assert sink.wants(alert(1, would_alert=True)) and (await sink.tell(alert(1))).ok
    assert [] == slack.requests and 1 == sink.counts["dry_run"]


def slack_settings(**slack: object) -> Settings:
    return Settings.model_validate({"sinks": {"slack": slack}})


def test_settings_that_cannot_work_say_what_to_do(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for config, message in [
        ({"token": "xoxb-1"}, "sinks.slack.channel"),
        ({"token_file": str(tmp_path / "none"), "channel": "C1"}, "cannot read .*none"),
        ({"token_file": str(empty), "channel": "C1"}, "one word"),
        ({"webhook_file": str(ROOT / "LICENSE")}, "sinks.slack.webhook_file"),
    ]:
        with pytest.raises(SlackConfigError, match=message):
            Slack.from_settings(slack_settings(**config), tmp_path)
    assert Slack.from_settings(Settings(), tmp_path) is None
    with pytest.raises(SlackConfigError, match="not configured"):
        post_sample(Settings())


def test_a_token_that_everybody_can_read_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = tmp_path / "token"
    secret.write_text("xoxb-1\n")
    secret.chmod(0o600)
    config = slack_settings(token_file=str(secret), channel="C1")
    with caplog.at_level(logging.WARNING):
        assert Slack.from_settings(config, tmp_path) is not None
        assert "" == caplog.text
        secret.chmod(0o644)
        Slack.from_settings(config, tmp_path)

    assert "chmod 600" in caplog.text


def test_the_test_message_reaches_the_stand_in_run_as_a_program(tmp_path: Path) -> None:
    """`python -m pipeline.sinks.fake_slack` and `wonted slack test` belong together."""
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline.sinks.fake_slack", "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )
    try:
        assert child.stdout is not None
        address = json.loads(child.stdout.readline())
        delivery = post_sample(slack_settings(token="xoxb-demo", channel="C1", base_url=address["base_url"]))
        message = json.loads(child.stdout.readline())
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(30)

    assert delivery.ok and "This is a test of Wonted" in message["text"] and 0 == child.returncode
    assert address["base_url"].startswith("http://127.0.0.1:")


async def test_kill_nine_while_posting_posts_again_and_says_so(slack: FakeSlack, alert: Make, tmp_path: Path) -> None:
    slack.fail("hang")
    path = tmp_path / "outbox.db"
    code = f"""
import asyncio
from pipeline.alert import Alert
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.slack import Bot, Slack

async def main():
    outbox = Outbox({str(path)!r}, [Slack(Bot("xoxb-1", "C1", {slack.base_url!r}))])
    outbox.put([Alert.decode({alert(1).encode()!r}), Alert.decode({alert(2).encode()!r})])
    await outbox.run()

asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT)
    await asyncio.wait_for(slack.until(lambda: slack.requests == [("chat.postMessage", "hang")]), 20)
    child.send_signal(signal.SIGKILL)
    await child.wait()

    async with running(Outbox(path, [bot(slack)])) as outbox:
        await drained(outbox)

    assert [True, False] == ["possibly told twice" in about(slack, alert(n))[0].text for n in (1, 2)]


async def test_the_stand_in_refuses_what_slack_refuses(slack: FakeSlack) -> None:
    sink = Slack(Bot("xoxb-wrong", "C1", slack.base_url))
    refused = await sink.tell(sample_alert())

    assert refused.refused and "invalid_auth" in str(refused.error)
    assert msgspec.structs.asdict(refused)["state"] == "retry"
