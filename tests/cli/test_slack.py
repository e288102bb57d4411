"""wonted slack: try it before it matters."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, wonted


class Stand(dict[str, Any]):
    """The stand-in for Slack as a process: where it is, and the requests it got."""

    process: subprocess.Popen[str]

    def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@pytest.fixture
def slack() -> Iterator[Stand]:
    command = [sys.executable, "-m", "pipeline.sinks.fake_slack", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        stand = Stand(json.loads(process.stdout.readline()))
        stand.process = process
        yield stand
        process.terminate()


def test_the_sample_is_posted_with_what_must_not_be_missing(slack: Stand, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("xoxb-1\n")
    token.chmod(0o600)
    where = f"sinks.slack.base_url={slack['base_url']}"

    result = wonted(
        "slack", "test", "-o", f"sinks.slack.token_file={token}", "-o", "sinks.slack.channel=#ops", "-o", where
    )

    assert (result.code, result.err) == (0, "slack: the sample alert is posted\n")
    posted = json.dumps(slack.next())
    assert all(words in posted for words in ("10.244.1.23", "203.0.113.7", "kdevtmpfsi -o pool.example:3333", "#ops"))


def test_an_unreachable_slack_is_a_dependency(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text("http://127.0.0.1:1/none")

    result = wonted("slack", "test", "-o", f"sinks.slack.webhook_file={hook}")

    assert result.code == 5
    assert "cannot reach Slack" in result.err


def test_without_a_token_it_says_what_to_set() -> None:
    result = wonted("slack", "test")

    assert result.code == 3
    assert "sinks.slack.token_file" in result.err


def test_the_preview_needs_no_account() -> None:
    shown, blocks = wonted("slack", "preview"), wonted("slack", "preview", "--json")

    for words in ("Container", "Container IP", "10.244.1.23", "Remote", "203.0.113.7:3333", "Command"):
        assert words in shown.out
    assert blocks.objects[0]["blocks"][0]["type"] == "header"
