"""Slack: what is posted, and that nothing is lost while it is away."""

import socket

from pipeline.demo.play import FakeSlack
from tests.benchmarks.common import Cell
from tests.e2e.conftest import PYTHON, Start, until

DANGER = """
import os
f = os.memfd_create("x")
os.write(f, open("/bin/true", "rb").read())
os.execve(f, ["hid", "{}"], {{}})
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def options(base_url: str) -> dict[str, object]:
    return {"sinks.slack.token": "xoxb-test", "sinks.slack.channel": "C1", "sinks.slack.base_url": base_url}


def test_an_alert_that_slack_could_not_take_arrives_when_it_is_back(start: Start, cell: Cell) -> None:
    port = free_port()
    service = start(options(f"http://127.0.0.1:{port}/api/"))

    cell.popen(PYTHON, "-c", DANGER.format("while-down")).wait(10)
    service.out.wait(lambda line: "while-down" in line.text and not line.object.get("finding"), 15, "alert")
    until(lambda: service.ask("status")["outbox"], lambda outbox: "slack" in str(outbox) or bool(outbox), 15)
    slack = FakeSlack(port)
    try:
        line = slack.lines.wait(lambda line: "while-down" in line.object.get("text", ""), 60, "message")
    finally:
        slack.close()

    assert cell.id[:12] in line.object["text"]


def test_a_message_names_container_address_and_command(start: Start, slack: FakeSlack, cell: Cell) -> None:
    start(options(slack.base_url))

    cell.popen(PYTHON, "-c", DANGER.format("<!channel>")).wait(10)

    text = slack.lines.wait(lambda line: "hid" in line.object.get("text", ""), 30, "message").object["text"]
    assert cell.id[:12] in text and "Container IP" in text and "Remote" in text
