"""Hostile text. Whoever is watched writes argv, paths, names and DNS answers; people and programs read them here.

`visible` makes what cannot be seen visible; `redact` takes secrets out of what leaves the machine, and says so.
"""

import re
import shlex
import unicodedata
from collections.abc import Sequence

REDACTED = "[redacted]"
NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Letters that draw nothing: Hangul fillers, the empty braille cell, the khmer inherent vowels, the combining joiner.
BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
MARKS = {"Mn", "Me"}


def visible(text: str) -> str:
    r"""Text whose every character shows, in one line and one direction: control, ANSI, bidirectional, zero-width,
    unassigned and blank characters become \u{..}; so do combining marks beyond the second on one letter.

    >>> print(visible("ls \x1b[31m" + chr(0x202e) + "x" + chr(10) + "y" + chr(0x200b)))
    ls \u{1b}[31m\u{202e}x\ny\u{200b}
    """
    if text.isascii() and text.isprintable():
        return text
    shown = []
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        marks = marks + 1 if category in MARKS else 0
        if char in NAMED:
            shown.append(NAMED[char])
        elif _hides(char, category) or marks > 2:
            shown.append(f"\\u{{{ord(char):x}}}")
        else:
            shown.append(char)
    return "".join(shown)


def _hides(char: str, category: str) -> bool:
    code = ord(char)
    return (
        category in HIDDEN
        or (category == "Zs" and char != " ")
        or code in BLANK
        or 0xFE00 <= code <= 0xFE0F
        or 0xE0100 <= code <= 0xE01EF
        or 0x180B <= code <= 0x180F
    )


def cut(text: str, limit: int) -> str:
    """At most `limit` characters; what is missing is said. The end of a command often is the point: keep it too.

    >>> cut("a" * 90 + "; evil", 40)
    'aaaaaaaaaaaaaa[... 73 more ...]aaa; evil'
    """
    if len(text) <= limit:
        return text
    mark = f"[... {len(text) - limit} more ...]"
    mark = f"[... {len(text) - max(0, limit - len(mark))} more ...]"
    keep = limit - len(mark)
    if keep <= 0:
        return text[:limit]
    tail = keep * 2 // 5
    return text[: keep - tail] + mark + (text[-tail:] if tail else "")


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, from the front."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


# -- secrets ----------------------------------------------------------------------------------------------------------

LONGEST = 4_000
"""Characters of one argument that are looked at; more never leaves the machine. Every pattern takes linear time."""
WORDS = 300
SECRETS = {"password", "passwd", "pass", "pwd", "passphrase", "passcode", "passin", "passout", "secret", "token",
           "apikey", "credential", "credentials", "jwt", "bearer", "cookie", "dsn", "sas"}  # fmt: skip
KEYS = {"api", "access", "auth", "account", "private", "secret", "encryption", "master", "signing", "license", "shared"}
HARMLESS = {"file", "path", "dir", "stdin", "fd", "env", "from", "name", "url", "ttl", "type", "length", "min", "max",
            "policy", "id", "size", "count", "store", "cmd", "command", "prompt", "expiry"}  # fmt: skip
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
FLAG = re.compile(r"(--?[\w.-]++)(=|:|$)(.*)", re.S)
ASSIGN = re.compile(r"""(?<![\w.-])([\w.-]++)(["']?[ ]{0,4}[=:][ ]{0,4})("[^"]*+"?|'[^']*+'?|[^\s"'&;,|)}<>]++)""")
HEADER = re.compile(
    r"""((?:proxy-)?authorization\s{0,4}[:=]\s{0,4}["']?)((?:(?:basic|bearer|token|digest|negotiate)\s{1,4})?[^\s"']++)""",
    re.I,
)
KEY_HEADER = re.compile(r"""(?<![\w-])(x-[\w-]++|private-token|(?:set-)?cookie)(\s{0,4}:\s{0,4}["']?)([^"']++)""", re.I)
SCHEME = re.compile(r"\b((?:basic|bearer)\s{1,4})([\w+/=.~-]{8,})", re.I)
USERINFO = re.compile(r"(?<=://)([^\s/@:?#]*+:)([^\s/?#]*)(?=@)")
TOKENS = re.compile(
    r"""
      (?<=://)[^\s/@:?#]{20,}+(?=@)                                              # https://TOKEN@host
    | (?<=hooks\.slack\.com/services/)[\w/]++
    | (?<![A-Za-z0-9])(?:
        xox[a-z]-[\w-]{8,} | xapp-[\w-]{8,}                                      # Slack
      | gh[pousr]_\w{16,} | github_pat_\w{20,} | glpat-[\w-]{16,}                # GitHub, GitLab
      | (?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA)[A-Z0-9]{12,}                           # AWS
      | AIza[\w-]{30,} | ya29\.[\w-]{20,}                                        # Google
      | sk[-_](?:live|test|proj|ant)[-_][\w-]{8,} | sk-[A-Za-z0-9]{20,} | rk_live_\w{8,}
      | npm_\w{30,} | pypi-[\w-]{30,} | dop_v1_\w{30,} | hvs\.[\w-]{16,} | dckr_pat_[\w-]{16,}
      | SG\.[\w-]{16,}\.[\w-]{16,}
      | eyJ[\w-]{6,}+\.eyJ[\w-]{4,}+(?:\.[\w-]*+)?                               # JWT
      )
    | -----BEGIN[ A-Z]{0,30}PRIVATE\ KEY-----.*?(?:-----END[ A-Z]{0,30}-----|$)
    """,
    re.X | re.S,
)

# Programs whose short options carry a secret: attached ("-pX") or as the next word.
ATTACHED = {
    "mysql": "-p", "mysqldump": "-p", "mysqladmin": "-p", "mariadb": "-p", "mariadb-dump": "-p", "mysqlimport": "-p",
    "mongo": "-p", "mongosh": "-p", "mongodump": "-p", "mongorestore": "-p", "sshpass": "-p", "redis-cli": "-a",
    "curl": "-u", "7z": "-p", "7za": "-p", "zip": "-P", "unzip": "-P", "ldapsearch": "-w", "ldapmodify": "-w",
    "docker": "-p", "podman": "-p", "sqlcmd": "-P", "smbclient": "-U", "influx": "-t", "vncviewer": "-passwd",
}  # fmt: skip
NEXT_TOO = {"sshpass", "mongo", "mongosh", "mongodump", "mongorestore", "redis-cli", "curl", "zip", "unzip",
            "ldapsearch", "ldapmodify", "sqlcmd", "smbclient", "influx"}  # fmt: skip
USER_PASS = {"curl", "smbclient"}


def redact(argv: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The argument vector without its secrets, and how many were taken out. A heuristic: it knows the common forms.

    >>> redact(["mysql", "-uroot", "-phunter2", "--token=abc", "shop"])
    (('mysql', '-uroot', '-p[redacted]', '--token=[redacted]', 'shop'), 2)
    """
    words: list[str] = []
    count = 0
    program = _program(argv)
    secret_next = False
    for index, word in enumerate(argv[:WORDS]):
        word = word if len(word) <= LONGEST else f"{word[:LONGEST]}[... {len(word) - LONGEST} more ...]"
        if secret_next and not (word.startswith("-") and len(word) > 1 and not word.startswith("--[")):
            secret_next = False
            words.append(_keep_user(word) if program in USER_PASS and ":" in word else REDACTED)
            count += 1
            continue
        secret_next = False
        option = ATTACHED.get(program)
        if index and option and not word.startswith("--") and word.startswith(option) and _is_login(program, argv):
            rest = word[len(option) :]
            if rest:
                words.append(option + (_keep_user(rest) if program in USER_PASS and ":" in rest else REDACTED))
                count += 1
                continue
            secret_next = program in NEXT_TOO or program in ("docker", "podman")
            words.append(word)
            continue
        flag = FLAG.fullmatch(word) if index else None
        if flag and is_secret(flag[1]):
            if flag[2]:
                words.append(f"{flag[1]}{flag[2]}{REDACTED}" if flag[3] else word)
                count += bool(flag[3])
            else:
                words.append(word)
                secret_next = True
            continue
        if index and program == "curl" and word in ("--user", "--proxy-user", "--oauth2-bearer"):
            secret_next = True
        redacted, found = redact_text(word)
        words.append(redacted)
        count += found
    if len(argv) > WORDS:
        words.append(f"[... {len(argv) - WORDS} more arguments ...]")
    return tuple(words), count


def _program(argv: Sequence[str]) -> str:
    return argv[0].rpartition("/")[2].lower() if argv else ""


def _is_login(program: str, argv: Sequence[str]) -> bool:
    """`docker -p` is a port, `docker login -p` a password."""
    return program not in ("docker", "podman") or "login" in argv[1:3]


def _keep_user(word: str) -> str:
    for sign in (":", "%"):
        user, found, _ = word.partition(sign)
        if found:
            return f"{user}{sign}{REDACTED}"
    return REDACTED


def redact_text(text: str) -> tuple[str, int]:
    """Free text without its secrets, and how many were taken out.

    >>> redact_text("curl -H 'Authorization: Bearer abcdef' https://ana:pw@h/ DB_PASSWORD=x")
    ("curl -H 'Authorization: [redacted]' https://ana:[redacted]@h/ DB_PASSWORD=[redacted]", 3)
    """
    count = 0
    if len(text) > 8 * LONGEST:
        text = f"{text[: 8 * LONGEST]}[... {len(text) - 8 * LONGEST} more ...]"

    def hide(match: re.Match[str]) -> str:
        nonlocal count
        *keep, secret = match.groups() or (match[0],)
        if REDACTED in secret or (match.re in (ASSIGN, KEY_HEADER) and not is_secret(match[1])):
            return match[0]
        count += 1
        return "".join(keep) + REDACTED

    for pattern in (HEADER, KEY_HEADER, TOKENS, USERINFO, SCHEME, ASSIGN):
        text = pattern.sub(hide, text)
    return text, count


def is_secret(name: str) -> bool:
    """Whether what is assigned to this name should stay here.

    >>> [is_secret(name) for name in ("--db-password", "PGPASSWORD", "trustStorePassword", "AWS_SECRET_ACCESS_KEY")]
    [True, True, True, True]
    >>> [is_secret(name) for name in ("--password-file", "bypass", "--key", "monkey", "tokens")]
    [False, False, False, False, False]
    """
    parts = [part.lower() for part in re.split(r"[-_.]", CAMEL.sub("_", name[-80:])) if part]
    if not parts or (parts[-1] in HARMLESS and parts[-2:] != ["session", "id"]):
        return False
    return (
        any(part in SECRETS for part in parts)
        or parts[-1].endswith(("password", "passwd", "passphrase", "secret", "apikey"))
        or (parts[-1] in ("key", "id") and len(parts) > 1 and (parts[-2] in KEYS or parts[-2] == "session"))
    )


def redact_command(command: str) -> tuple[str, int]:
    """A command line that comes as one string, as in a process tree."""
    if len(command) > 8 * LONGEST:
        return redact_text(command)
    try:
        argv = shlex.split(command)
    except ValueError:
        return redact_text(command)
    if shlex.join(argv) != command:
        return redact_text(command)
    words, count = redact(argv)
    return (shlex.join(words) if count else command), count
