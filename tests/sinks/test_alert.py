"""One alert as JSON is exactly what INTERFACES.md shows."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from models.finding import Finding
from pipeline.alert import Alert, clean, finding_json, make, make_id, to_line
from pipeline.incidents import Passwd
from probes.event import Container, Event, Process, Remote

EXAMPLE = """
{"v": 1, "id": "al_01JD7K...", "incident": "in_01JD7K...", "time": "2026-11-22T20:31:07.123456Z", "told": "2026-11-22T20:31:07.220000Z",
 "severity": "high", "mode": "enforcing", "would_alert": false, "workload": "shop/checkout:app", "kind": "exec", "detector": "novelty",
 "what": "New program in shop/checkout: /tmp/.x/kdevtmpfsi", "why": "First time sh ran /tmp/.x/kdevtmpfsi: 0 of 24,820 runs by sh ...",
 "expected_per_week": 0.003, "budget": 1.0, "command": "/tmp/.x/kdevtmpfsi -o pool.example:3333", "argv": ["..."], "argv_cut": false,
 "exe": "/tmp/.x/kdevtmpfsi", "pid": 4321, "vpid": 57, "user": {"uid": 1000, "name": "node"}, "tree": [{"pid": 4210, "vpid": 1, "command": "tini"}],
 "object": "/tmp/.x/kdevtmpfsi", "container": {"id": "3f2a9c0d4e5f...", "name": "checkout", "image": "registry.local/checkout:2.14.1", "digest": "sha256:...", "ip": ["10.244.1.23"]},
 "k8s": {"namespace": "shop", "pod": "checkout-6d5f-x2k", "owner": "Deployment/checkout", "node": "ip-10-0-3-17"}, "host": "ip-10-0-3-17",
 "remote": {"ip": "203.0.113.7", "port": 3333, "name": "pool.example"}, "attack": ["T1059"], "seen": 1, "lost": 0, "update": false,
 "evidence": {"of": {"count": 24820, "of": "run", "where": "by sh"}, "quiet_s": 532800, "told": 0}}
"""  # noqa: E501 (as in INTERFACES.md)


def told(finding: Finding, **more: Any) -> dict[str, Any]:
    return make(
        finding, id="al_1", incident="in_1", told=finding.event.time + 96_543_211, host="node-1", **more
    ).to_json()


def shape(value: Any) -> Any:
    """Keys, in their order, and types; numbers are one type."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_an_alert_of_a_pod_is_the_documented_object() -> None:
    example = json.loads(EXAMPLE)
    tini = Process(4210, 1, 1, "tini", "/sbin/tini", ("tini",))
    argv = ("/tmp/.x/kdevtmpfsi", "-o", "pool.example:3333")
    process = Process(4321, 57, 4210, "kdevtmpfsi", argv[0], argv, parent=tini)
    container = Container(
        "3f2a9c0d4e5f...",
        name="checkout",
        image="registry.local/checkout:2.14.1",
        digest="sha256:...",
        ip=("10.244.1.23",),
        namespace="shop",
        pod="checkout-6d5f-x2k",
        owner="Deployment/checkout",
    )
    remote = Remote("203.0.113.7", 3333, "pool.example")
    workload = "shop/checkout:app"
    time = 1_795_379_467_123_456_000
    event = Event(time, workload, "exec", "exec", process, 4321, 1000, argv[0], remote=remote, container=container)
    finding = Finding(
        event, workload, "exec", "novelty", None, "high", example["what"], example["why"], 9.0, 0.003, 1.0, "enforcing",
        False, "v", "f", ("T1059",), example["evidence"],
    )  # fmt: skip

    made = make(
        finding, id=example["id"], incident=example["incident"], told=1_795_379_467_220_000_000, host="ip-10-0-3-17"
    )

    expected = example | {
        "argv": list(argv),
        "user": {"uid": 1000, "name": None},
        "tree": [{"pid": 4210, "vpid": 1, "command": "tini"}, {"pid": 4321, "vpid": 57, "command": example["command"]}],
    }
    assert expected == made.to_json()
    assert list(example) == list(made.to_json())
    assert shape(example | {"user": {"uid": 1, "name": None}}) == shape(made.to_json())


def test_what_is_unknown_is_null_and_never_missing(finding: Callable[..., Finding]) -> None:
    bare = finding(argv=(), container=None, expected_per_week=None, budget=None, object=None)

    alert = told(bare)

    assert list(json.loads(EXAMPLE)) == list(alert)
    for key in ("argv", "exe", "object", "container", "k8s", "remote", "expected_per_week", "budget"):
        assert alert[key] is None, key
    assert "sh" == alert["command"]


def test_a_plain_container_has_no_k8s_and_a_pod_has(finding: Callable[..., Finding]) -> None:
    assert told(finding())["k8s"] is None
    assert {"namespace": "a", "pod": "b", "owner": None, "node": "node-1"} == told(
        finding(container=Container("c" * 64, namespace="a", pod="b"))
    )["k8s"]


def test_only_users_of_the_host_have_a_name(finding: Callable[..., Finding], tmp_path: Any) -> None:
    """A container has its own passwd; uid 0 in it is not the host's root."""
    passwd = tmp_path / "passwd"
    passwd.write_text("root:x:0:0::/:/bin/sh\nana:x:1000:1000::/:/bin/sh\nlate:x:1000:1::/:/bin/sh\nbroken\n")
    names = Passwd(passwd)

    assert {"uid": 1000, "name": "ana"} == told(finding(container=None), user_name=names)["user"]
    assert {"uid": 1000, "name": None} == told(finding(), user_name=names)["user"]
    assert {"uid": 7, "name": None} == told(finding(container=None, uid=7), user_name=names)["user"]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), None])
def test_json_has_no_infinity(value: float | None, finding: Callable[..., Finding]) -> None:
    alert = told(finding(expected_per_week=value))

    assert alert["expected_per_week"] is None
    to_line(alert)


def test_a_line_is_plain_ascii_whatever_the_command(finding: Callable[..., Finding]) -> None:
    """No byte of a line can move a cursor, turn the text or end the line; what was typed comes back exactly."""
    argv = (
        "/bin/echo",
        "\x1b[2J\x07\n\r\x7f\x9b31m\u202e\u200b\u2028é😀",
        b"\xff\xfe".decode("utf-8", "surrogateescape"),
    )

    line = to_line(told(finding(argv=argv)))

    assert all(32 <= byte < 127 for byte in line[:-1]) and line.endswith(b"\n")
    assert [*argv[:2], "\\xff\\xfe"] == json.loads(line)["argv"]


def test_a_finding_line_is_an_alert_line_with_finding_true(finding: Callable[..., Finding]) -> None:
    line = finding_json(finding(at=3), "0/1/2", None, 5 * 10**18, "node-1")

    assert [*json.loads(EXAMPLE), "finding"] == list(line)
    assert (True, None, "2026-11-22T20:31:10.123456Z") == (line["finding"], line["incident"], line["time"])


def test_ids_are_ulids_that_depend_on_nothing_but_the_finding() -> None:
    first, second = make_id("al", 1_795_379_467_123_000_000, "a"), make_id("al", 1_795_379_467_124_000_000, "a")

    assert first == make_id("al", 1_795_379_467_123_000_000, "a")
    assert first < second and first != make_id("al", 1_795_379_467_123_000_000, "b")
    assert 29 == len(first) and set(first[3:]) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


def test_an_alert_survives_its_encoding(alert: Callable[..., Alert]) -> None:
    assert alert(1) == Alert.decode(alert(1).encode())


def test_text_keeps_what_is_utf8_and_shows_what_is_not() -> None:
    assert "é😀\\xff" == clean("é😀".encode().decode() + b"\xff".decode("utf-8", "surrogateescape"))
