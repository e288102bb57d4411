"""Where an event leaves what is known: one small function per kind that names its value, one that weighs a departure.

A value is a way through the tree, from general to special: ("file", program, "write", "data", "uploads", "<uuid>.jpg").
A weight is prior knowledge, as odds: how many benign departures of this sort to expect where one novelty of any sort is
expected. 50: almost all of them are benign (a library is read); 0.02: almost none (a secret is read). Only
`models/budget.py` turns weights into expected occurrences per week.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from models import paths, programs
from models.tree import ANY, SECRET, SPECIAL, Node, Tree
from probes.event import Event

REFUSED = (-1, -13, -30)
"""EPERM, EACCES, EROFS: somebody said no. Other errors say that something was not there."""
EPHEMERAL = 32_768
WX = ("mprotect", "mmap", "pkey_mprotect")
READ_ACTIONS = ("open_read",)
WRITE_ACTIONS = ("open_write", "create", "truncate", "mkdir")
NAME_ACTIONS = ("unlink", "rename", "rmdir")
LINK_ACTIONS = ("link", "symlink")
SIGNALS = ("kill", "tkill", "tgkill", "pidfd_send_signal")
POOL_PORTS = frozenset({3333, 4444, 5555, 6666, 7777, 14444, 45700, 1337, 31337, 9001})
"""Ports that mining pools and remote shells like: a weight, never a verdict."""


class View(NamedTuple):
    """What an event is to the baseline."""

    tokens: tuple[str, ...]
    sort: str
    """plain, or what makes it special: secret, startup, writable, shell, download, runnable ..."""
    path: str = ""
    """What was acted on, as it was."""


class Known(NamedTuple):
    """What a weigher may ask about the workload."""

    tree: Tree
    programs: set[str]
    host: bool

    def below(self, *tokens: str) -> dict[str, Node]:
        """The children of a place; none where it is not known."""
        node = self.tree.root
        for token in tokens:
            found = (node.children or {}).get(token)
            if found is None:
                return {}
            node = found
        return node.children or {}


class Weight(NamedTuple):
    odds: float
    what: str
    near: str
    """The nearest normal, as the end of a sentence."""
    severity: str
    attack: tuple[str, ...] = ()


# --- exec ------------------------------------------------------------------------------------------------------------

_URL = re.compile(r"^(?:https?|ftp|tcp|udp|ssh|git|s3|redis|postgres\w*|mysql|mongodb\S*|amqp)://(?:[^/@\s]*@)?\[?([^/:\]\s]+)")
_IP = re.compile(r"^\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?$")
_WORD = re.compile(r"^[a-z][a-z0-9_.-]{1,20}$")
_ASSIGN = re.compile(r"^\w+=\S*$")
_GLUE = frozenset("if then else fi do done while until for case esac { } ! exec command time nohup env sudo nice timeout \\ in".split())
_INLINE = {"python": "-c", "perl": "-e", "ruby": "-e", "node": "-e", "nodejs": "-e", "php": "-r", "lua": "-e"}


@lru_cache(maxsize=4096)
def command_words(text: str) -> tuple[str, ...]:
    """The programs that a shell's command line names.

    >>> command_words("cd /x && FOO=1 /usr/bin/gzip -9 a | tee b; rm -f c")
    ('cd', 'gzip', 'tee', 'rm')
    """
    words: list[str] = []
    for part in re.split(r"\|\|?|&&?|;|\n|\$\(|`|\(|\)", text[:4096]):
        for word in part.split()[:8]:
            word = word.strip("\"'")
            if not word or word in _GLUE or _ASSIGN.match(word) or word.startswith(("-", ">", "<", "2>", "1>")):
                continue
            if word.isdigit():
                continue
            name = paths.segment(word.rsplit("/", 1)[-1][:40])
            if name and name not in words:
                words.append(name)
            break
        if len(words) >= 8:
            break
    return tuple(words)


@lru_cache(maxsize=4096)
def shape(program: str, argv: tuple[str, ...]) -> str:
    """What kind of command line this is; what differs from run to run is left out.

    >>> shape("/bin/sh", ("sh", "-c", "gzip -9 /data/1.csv && rm /data/1"))
    '-c gzip rm'
    >>> shape("/usr/bin/tar", ("tar", "-czf", "/backup/2026-11-23.tgz", "/data"))
    '-czf /backup/ /data'
    >>> shape("/usr/bin/python3.11", ("python3", "/app/worker.py", "--shard=3"))
    '/app/worker.py --shard='
    >>> shape("/usr/bin/curl", ("curl", "-s", "http://10.0.0.7:80/x?id=7"))
    '-s url:<ip>'
    """
    kind = programs.tool(program)
    name = programs.base(program)
    rest = argv[1:]
    if rest and program.rsplit(" ", 1)[-1] == rest[0] and argv[0].rsplit("/", 1)[-1] in programs.MULTICALL:
        rest = rest[1:]
    out: list[str] = []
    code_next = script_seen = False
    for arg in rest:
        if code_next:
            code_next = False
            if kind == "shell":
                out.extend(command_words(arg))
            else:
                names = sorted(set(re.findall(r"\b(?:import|from|require)\W+(\w+)", arg)))[:4]
                out.append("code:" + ",".join(names) + f":{_code_mark(arg)}")
            script_seen = True
            continue
        if arg.startswith("-") and len(arg) > 1:
            option, equals, _ = arg.partition("=")
            if kind == "shell" and re.match(r"^-[a-z]*c[a-z]*$", option):
                code_next = True
            elif _INLINE.get(name) == option:
                code_next = True
            token = paths.segment(option[:32]) + equals
        elif kind in ("shell", "interpreter") and not script_seen and not _URL.match(arg):
            script_seen = True
            token = "/" + "/".join(paths.segments(arg)) if arg.startswith("/") else paths.segment(arg[:60])
        elif match := _URL.match(arg):
            token = "url:" + ("<ip>" if _IP.match(match[1]) else match[1][:60])
        elif _IP.match(arg):
            token = "<ip>"
        elif "/" in arg:
            if paths.place(arg) == "secret" or paths.place(arg) == "startup":
                token = arg[:80]
            else:
                parts = paths.segments(arg) or ("",)  # "/" has none
                token = ("/" if arg.startswith("/") else "") + parts[0 if arg.startswith("/") else -1]
                token += "/" if len(parts) > 1 else ""
        elif _WORD.match(arg) and "<" not in paths.segment(arg) and not any(not t.startswith("-") for t in out):
            token = arg
        else:
            token = "<n>" if arg[:1].isdigit() else "<w>"
        token = token.replace(" ", "_")
        if token not in out:
            out.append(token)
        if len(out) >= 10:
            out.append("...")
            break
    return " ".join(out)


def _code_mark(code: str) -> str:
    import zlib

    return format(zlib.crc32(re.sub(r"\d+", "0", code).encode("utf-8", "replace")) & 0xFFFF, "04x")


@lru_cache(maxsize=4096)
def normal(program: str) -> str:
    """A program's name without what changes from build to build.

    >>> normal("/build/job-4711/test"), normal("/usr/bin/python3.11"), normal("(docker exec)")
    ('/build/job-<n>/test', '/usr/bin/python3.11', '(docker exec)')
    """
    if not program.startswith("/") or paths.is_system(program):
        return program
    return "/" + "/".join(paths.segments(program))


def who(event: Event) -> str:
    return normal(programs.program(event.process))


@lru_cache(maxsize=4096)
def exec_name(program: str) -> tuple[str, str]:
    """(token, sort) of a program that is run.

    >>> exec_name("/usr/bin/wget"), exec_name("/tmp/build1234/x"), exec_name("/usr/sbin/nginx")
    (('!/usr/bin/wget', 'download'), ('!/tmp/build<n>/x', 'writable'), ('/usr/sbin/nginx', 'plain'))
    """
    if paths.is_writable_place(program):
        return SPECIAL + normal(program), "writable"
    kind = programs.tool(program)
    return (SPECIAL + normal(program), kind) if kind else (normal(program), "plain")


def view_exec(event: Event) -> View | None:
    if event.action != "exec" or (event.result < 0 and event.result not in REFUSED):
        return None
    process = event.process
    program = programs.program(process) if process.exe else (event.object or programs.program(process))
    if event.result < 0:
        program = event.object or program
    token, sort = exec_name(program)
    line = shape(program, process.argv)
    if event.result < 0:
        line = ("refused " + line).strip()
    return View(("exec", normal(programs.parent(process)), token, line), sort, program)


_EXEC_NEW = {"writable": 0.03, "shell": 0.05, "download": 0.03, "network": 0.03, "recon": 0.1, "change": 0.1, "interpreter": 0.1}
_EXEC_MOVED = {"writable": 0.2, "shell": 0.3, "download": 0.1, "network": 0.1, "recon": 0.4, "change": 0.3, "interpreter": 0.4}
_EXEC_SEVERITY = {"writable": "high", "shell": "medium", "download": "high", "network": "high", "recon": "medium", "change": "medium"}


def weigh_exec(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    _, parent, token, line = view.tokens
    program = view.path
    severity = _EXEC_SEVERITY.get(view.sort, "medium")
    refused = line.startswith("refused")
    if depth <= 2:
        if token.lstrip(SPECIAL) not in known.programs:
            odds = _EXEC_NEW.get(view.sort, 0.25)
            where = program.rsplit("/", 1)[0] or "/"
            kin = sum(1 for p in known.programs if p.rsplit("/", 1)[0] == where)
            near = f"{kin} others of {where} are usual" if kin else f"nothing was ever started from {where}"
            verb = "Refused program" if refused else "New program"
            return Weight(odds, f"{verb} in {{workload}}: {program}", near, severity, _exec_attack(view.sort))
        odds = _EXEC_MOVED.get(view.sort, 0.7)
        if parent == "(start)":
            odds = max(odds, 3.0)
        parents = known.below("exec")
        usual = [p for p, node in parents.items() if token in (node.children or {})]
        near = f"usually started by {', '.join(sorted(usual)[:3])}" if usual else "it is usual only as a running program"
        return Weight(odds, f"{parent} ran {program} in {{workload}}", near, "low" if view.sort == "plain" else severity, _exec_attack(view.sort))
    pair = nodes[3] if len(nodes) > 3 else nodes[-1]
    shapes = list(pair.children or {})
    words = {w for s in shapes for w in s.split(" ")}
    fresh = [w for w in line.split(" ") if w and w not in words]
    odds = min((_word_odds(w, program) for w in fresh), default=6.0)
    if odds > 0.45 and sum(c.n for c in (pair.children or {}).values()) < 3:
        odds *= 4
    near = f"usual: {programs.base(program)} {sorted(shapes)[0]}".rstrip() + (f" and {len(shapes) - 1} more" if len(shapes) > 1 else "") if shapes else "never run with arguments"
    return Weight(odds, f"{programs.base(program)} run in a new way in {{workload}}: {' '.join(fresh) or line}", near, "low" if odds > 0.25 else "medium", ("T1059",) if view.sort in ("shell", "interpreter") else ())


def _word_odds(word: str, program: str) -> float:
    if word.startswith("/") and paths.place(word) in ("secret", "startup"):
        return 0.1
    if word == "refused":
        return 0.3
    if word.startswith("code:"):
        return 0.4
    if word.startswith("url:"):
        return 0.3
    if word.startswith("-"):
        return 0.6
    if programs.tool(program) in ("shell", "interpreter") and word.startswith("/") and not word.endswith("/") and paths.is_writable_place(word):
        return 0.1
    if programs.tool(program) == "shell":
        return 0.1 if programs.tool(word) in ("shell", "download", "network", "change") or programs.is_viewer(word) else 0.4
    if word.startswith("/"):
        return 0.4 if programs.tool(program) == "interpreter" and not word.endswith("/") else 2.5
    return 6.0 if "<" in word else 1.5


def _exec_attack(sort: str) -> tuple[str, ...]:
    return {"shell": ("T1059",), "interpreter": ("T1059",), "download": ("T1105",), "network": ("T1095",), "recon": ("T1082",),
            "writable": ("T1059", "T1036.005")}.get(sort, ("T1059",))  # fmt: skip


# --- file ------------------------------------------------------------------------------------------------------------


def _op(event: Event) -> str | None:
    action = event.action
    if action in READ_ACTIONS:
        return "list" if event.flags and "O_DIRECTORY" in event.flags else "read"
    if action in WRITE_ACTIONS:
        return "write"
    if action in NAME_ACTIONS:
        return "name"
    if action in LINK_ACTIONS:
        return "link"
    if action == "chmod":
        mode = event.detail.get("mode", 0)
        return "make runnable" if isinstance(mode, int) and mode & 0o111 else "rights"
    if action == "mknod":
        return "node"
    return "rights"


def view_file(event: Event) -> View | None:
    path = event.object
    if not path:
        return None
    if event.result < 0 and event.result not in REFUSED:
        return None
    op = _op(event)
    if op is None:
        return None
    to = event.detail.get("to") if event.detail else None
    if isinstance(to, str) and to:
        worst = paths.place(to)
        if event.action in ("rename", "link") or worst in ("secret", "startup"):
            path = to if worst in ("secret", "startup") or paths.place(path) not in ("secret", "startup") else path
    return _view_file(who(event), op, path, event.result < 0)


@lru_cache(maxsize=8192)
def _view_file(program: str, op: str, path: str, refused: bool) -> View:
    sort = paths.place(path)
    looks = op in ("read", "list")
    if refused:
        op += " refused"
    if looks and sort == "system":
        return View(("file", program, op, *paths.segments(path)[:2], "**"), sort, path)
    parts = paths.segments(path) or ("/",)
    if sort == "secret":
        parts = (*parts[:-1], SECRET + path.rsplit("/", 1)[-1])
    elif not looks and paths.is_runnable_name(path) and sort not in ("startup", "system"):
        parts = (*parts[:-1], SPECIAL + parts[-1])
        sort = "runnable:" + sort
    elif not looks and sort == "system" and ("/__pycache__/" in path or "/proc/" == path[:6]):
        sort = "temp" if path[:6] != "/proc/" else "proc"
    return View(("file", program, op, *parts), sort, path)


def _dir_known(tree: Tree, program: str, op: str, parts: tuple[str, ...]) -> bool:
    nodes, depth = tree.walk(("file", program, op, *parts[:-1]))
    return depth == len(parts) + 2 and bool(nodes[-1].children)


_FILE_VERBS = {"read": "read", "list": "listed", "write": "wrote", "name": "removed or renamed", "link": "linked",
               "make runnable": "made runnable", "rights": "changed the rights of", "node": "made a node"}  # fmt: skip


def weigh_file(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    _, program, op, *rest = view.tokens
    parts = tuple(rest)
    refused = op.endswith(" refused")
    op = op.removesuffix(" refused")
    name = programs.base(program)
    verb = {"unlink": "removed", "rename": "renamed", "truncate": "truncated", "create": "created", "mkdir": "made"}.get(event.action, _FILE_VERBS[op])
    what = f"{name} {'was refused: ' if refused else ''}{verb} {view.path} in {{workload}}"
    near = _file_near(view, depth, nodes, op, name)
    odds = _file_odds(view, op, depth, program, parts, known)
    if refused and op not in ("read", "list"):
        odds *= 0.5
    elif refused and odds < 30:
        odds = min(odds, 0.3)
    severity, attack = _file_severity(view, op, odds)
    return Weight(odds, what, near, severity, attack)


def _file_near(view: View, depth: int, nodes: list[Node], op: str, name: str) -> str:
    if depth <= 2:
        return f"{name} never {_FILE_VERBS[op]} anything before"
    kin = sorted(t.lstrip(SPECIAL) for t in (nodes[-1].children or {}))
    where = "/" + "/".join(view.tokens[3:depth])
    more = f" and {len(kin) - 2} more" if len(kin) > 2 else ""
    return f"under {where} {name} usually {_FILE_VERBS[op]}: {', '.join(kin[:2])}{more}" if kin else f"{name} knows nothing under {where}"


def _file_severity(view: View, op: str, odds: float) -> tuple[str, tuple[str, ...]]:
    sort = view.sort
    if sort == "secret":
        return "high", ("T1552.001",) if op == "read" else ("T1070",) if "_history" in view.path else ("T1098",)
    if sort == "startup" and op not in ("read", "list"):
        return "high", ("T1053.003",) if "cron" in view.path else ("T1543",)
    if op == "make runnable":
        return "medium", ("T1222.002",)
    if op == "name" and paths.is_log(view.path):
        return "medium", ("T1070",)
    if op == "write" and (sort.startswith("runnable") or sort in ("code", "system")):
        return "medium", ("T1105",) if sort.startswith("runnable") else ("T1565",)
    return ("medium" if odds < 0.3 else "low"), ()


def _file_odds(view: View, op: str, depth: int, program: str, parts: tuple[str, ...], known: Known) -> float:
    sort = view.sort
    kind = programs.tool(program)
    viewer = programs.is_viewer(program)
    by_hand = viewer or kind in ("shell", "download", "network", "recon", "change")
    if sort == "null":
        return 40.0
    if op in ("read", "list"):
        return _read_odds(view, op, depth, program, parts, known, viewer)
    new_name = depth == len(view.tokens) - 1
    deep = depth >= 5
    volatile = "<" in parts[-1]
    if sort == "secret":
        return 0.03
    if sort == "startup":
        return 0.02
    if sort == "proc":
        return 2.0 if re.match(r"^/proc/(?:self|thread-self|\d+)/", view.path) else 0.08
    written = _dir_known(known.tree, program, "write", parts)
    if op == "name":
        if written:
            return 8.0
        if paths.is_log(view.path):
            return 0.1
    if op == "link":
        return 3.0 if new_name else 0.3
    if op == "node":
        return 0.1
    if op == "make runnable":
        return 3.0 if new_name else 0.15
    if op == "rights":
        return 4.0 if new_name else 2.0 if written else 0.5
    if sort.startswith("runnable"):
        if new_name:
            ending = parts[-1].rsplit(".", 1)[-1]
            nodes, _ = known.tree.walk(view.tokens[:-1])
            if any(t.startswith(SPECIAL) and t.rsplit(".", 1)[-1] in (ending, SPECIAL + ANY) for t in nodes[-1].children or ()):
                return 1.5
        return 0.25
    if not new_name and sort in ("data", "other") and _read_only_here(known, parts):
        return 0.3
    if sort in ("code", "system"):
        return 2.0 if new_name and sort == "code" and not view.path.startswith("/etc/") else 0.1
    if sort == "temp":
        if volatile:
            return 4.0
        if new_name:
            return 1.5
        return 0.5 if by_hand else 1.5
    if sort == "data":
        if new_name:
            return 2.0 if by_hand else 6.0
        if deep:
            return 0.8 if by_hand else 4.0
        return 0.5 if by_hand else 1.5
    return (2.0 if by_hand else 3.0) if new_name else 0.4


def _read_only_here(known: Known, parts: tuple[str, ...]) -> bool:
    """A directory that is read here and that nothing writes: content, not data."""
    others = known.below("file")
    return any(_dir_known(known.tree, p, "read", parts) for p in others) and not any(_dir_known(known.tree, p, "write", parts) for p in others)


def _read_odds(view: View, op: str, depth: int, program: str, parts: tuple[str, ...], known: Known, viewer: bool) -> float:
    sort = view.sort
    if sort == "system":
        return 50.0
    if sort == "secret":
        if "/environ" in view.path:
            return 0.2
        return 0.02 if not known.host else 2.0 if program.startswith(("/usr/sbin/", "/usr/lib/", "/lib/", "/sbin/")) else 0.1
    if depth <= 1 and program not in known.programs:
        return 30.0  # a program that is new itself has been told; what it then reads says little more
    if op == "list":
        return 3.0
    if view.path.startswith("/etc/"):
        return 0.5 if viewer else 4.0
    if depth == len(view.tokens) - 1:
        return 1.5 if viewer else 6.0
    odds = 0.5 if viewer else 4.0 if depth >= 5 else {"temp": 2.0, "data": 1.5, "code": 2.0}.get(sort, 0.7)
    if odds < 2.0 and not viewer and any(
        _dir_known(known.tree, other, o, parts) for other in known.below("file") for o in ("read", "write")
    ):
        return 2.0
    return odds


# --- network ---------------------------------------------------------------------------------------------------------

_PRIVATE = re.compile(r"^(?:10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|169\.254\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|f[cd]|fe80)", re.IGNORECASE)
_LOOP = re.compile(r"^(?:127\.|::1$|0\.0\.0\.0$|::$|::ffff:127\.)")
_HARMLESS_UNIX = re.compile(r"^(?:/var)?/run/(?:nscd/|systemd/(?:journal|notify|userdb|private|resolve)|dbus/system_bus)|^/dev/log$|^/run/systemd/")
_TWO_LEVEL = frozenset("co com org net gov edu ac or ne".split())


def plain_address(ip: str) -> str:
    return ip[7:] if ip.startswith("::ffff:") and "." in ip else ip


def prefix(ip: str) -> str:
    """
    >>> prefix("203.0.113.7"), prefix("2001:db8:1:2::5")
    ('203.0.113.', '2001:db8:1:')
    """
    if "." in ip:
        return ip.rsplit(".", 1)[0] + "."
    return ":".join(ip.split(":")[:3]) + ":"


def domain(name: str) -> str:
    """
    >>> domain("a.b.example.co.uk"), domain("www.example.com"), domain("db")
    ('example.co.uk', 'example.com', 'db')
    """
    labels = name.rstrip(".").lower().split(".")
    if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _TWO_LEVEL:
        return ".".join(labels[-3:])
    return ".".join(labels[-2:])


def split_address(text: str) -> tuple[str, str]:
    """
    >>> split_address("[::1]:80"), split_address("10.0.0.1:5432"), split_address("db")
    (('::1', '80'), ('10.0.0.1', '5432'), ('db', ''))
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        return text.strip("[]"), ""
    return host.strip("[]"), port


def unix_name(text: str) -> str:
    name = text.removeprefix("unix:")
    if name.startswith("/"):
        return "/" + "/".join(paths.segments(name))
    return paths.segment(name[:60])


def view_connect(event: Event, names: dict[str, str] | None = None) -> View | None:
    program = who(event)
    target = event.object or ""
    detail = event.detail
    if target.startswith("unix:") or detail.get("family") == "unix":
        if not target or target == "unix:":
            return None
        return View(("connect", program, "unix", unix_name(target)), "unix", target)
    remote = event.remote
    ip, port = (remote.ip, str(remote.port or "")) if remote is not None and remote.ip else split_address(target)
    if not ip:
        return None
    ip = plain_address(ip)
    proto = str(detail.get("proto") or ("udp" if event.action == "udp_send" else "tcp"))
    shown = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    if proto == "udp" and port == "53":
        return View(("connect", "(any)", "resolver", ip, "53"), "resolver", shown)
    if _LOOP.match(ip):
        number = int(port) if port.isdigit() else 0
        return View(("connect", program, proto, "127.0.0.1", "<high>" if number >= EPHEMERAL else port), "loopback", shown)
    name = (remote.name if remote is not None else None) or (names.get(ip) if names else None)
    if name:
        parts = name.rstrip(".").lower().split(".")
        label = ".".join(paths.segment(p) for p in parts[-8:])
        return View(("connect", program, proto, label, port), "private" if _PRIVATE.match(ip) else "external", f"{shown} ({name})")
    return View(("connect", program, proto, ip, port), "private" if _PRIVATE.match(ip) else "external", shown)


def weigh_connect(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    _, program, proto, host, *tail = view.tokens
    port = tail[0] if tail else ""
    kind = programs.tool(program)
    by_hand = kind in ("shell", "download", "network", "recon", "change")
    what = f"{programs.base(program)} in {{workload}} connected to {view.path}" if event.action != "udp_send" else f"{programs.base(program)} in {{workload}} sent to {view.path}"
    attack = ("T1071",)
    dests = sorted((nodes[2].children or {}) if len(nodes) > 2 and depth < 4 else [])
    mine = {h: n.children or {} for h, n in known.below("connect", program, proto).items()}
    near = f"its usual peers: {', '.join(sorted(mine)[:3])}" if mine else f"{programs.base(program)} never connected anywhere before"
    if proto == "unix":
        if _HARMLESS_UNIX.match(host):
            return Weight(20.0, what, near, "low", ())
        return Weight(0.5, what, near, "medium", ())
    if view.sort == "resolver":
        return Weight(0.3, f"{{workload}} asks another DNS resolver: {view.path}", f"its usual: {', '.join(dests[:3]) or 'none'}", "medium", ("T1071.004",))
    if view.sort == "loopback":
        if port == "<high>":
            return Weight(3.0, what, near, "low", attack)
        own = _listens(known, port)
        return Weight(5.0 if own else 0.6, what, near, "low", attack)
    others = [p for p in known.below("connect") if p != program and port in known.below("connect", p, proto, host)]
    if others:
        return Weight(0.3 if by_hand else 2.5, what, f"so far only {programs.base(others[0])} does", "medium" if by_hand else "low", attack)
    if proto == "udp" and port in known.below("connect", program, "tcp", host) or (proto == "udp" and port in ("0", "")):
        return Weight(8.0, what, near, "low", attack)
    if depth == 4:
        return Weight(0.4, what, f"there it usually uses port {', '.join(sorted(nodes[4].children or {})[:3])}", "medium", attack)
    is_address = host[:1].isdigit() and "." in host or ":" in host
    if is_address:
        near_ones = [h for h, ports in mine.items() if h.startswith(prefix(host)) and (port in ports or ANY in ports)]
        if len(near_ones) > 1:
            return Weight(6.0, what, near, "low", attack)
        if near_ones:
            return Weight(0.5, what, f"its usual neighbour there: {near_ones[0]}", "medium", attack)
    else:
        kin = [h for h, ports in mine.items() if not h[:1].isdigit() and domain(h) == domain(host) and port in ports]
        if kin:
            return Weight(1.5, what, f"in the same domain it knows {kin[0]}", "low", attack)
    odds = 0.15 if view.sort == "external" else 0.25
    if by_hand:
        odds *= 0.3
    if port.isdigit() and int(port) in POOL_PORTS:
        odds *= 0.3
    return Weight(odds, what, near, "high" if by_hand or odds < 0.1 else "medium", attack)


def _listens(known: Known, port: str) -> bool:
    """Does any program of the workload listen on this port?"""
    return any(port in known.below("listen", p, proto, where) for p in known.below("listen") for proto in known.below("listen", p) for where in known.below("listen", p, proto))


def view_accept(event: Event) -> View | None:
    if event.result < 0:
        return None
    port = str(event.detail.get("lport") or event.detail.get("local_port") or "")
    if not port:
        local = event.detail.get("local")
        port = split_address(str(local))[1] if local else ""
    target = event.object or ""
    remote = event.remote
    if target.startswith("unix:") or event.detail.get("family") == "unix":
        return View(("accept", "unix", unix_name(target)), "plain", target)
    ip = remote.ip if remote is not None and remote.ip else split_address(target)[0]
    if not ip:
        return None
    return View(("accept", port or "(listener)", prefix(plain_address(ip))), "plain", ip)


def weigh_accept(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    what = f"{programs.base(programs.program(event.process))} in {{workload}} was reached by {view.path}"
    near = f"usual peers: {', '.join(sorted(nodes[-1].children or {})[:3])}" if depth == 2 else "nobody ever connected there"
    return Weight(20.0 if depth == 2 else 3.0, what, near, "low", ())


def view_listen(event: Event) -> View | None:
    if event.result < 0 and event.result not in REFUSED:
        return None
    program = who(event)
    target = event.object or ""
    if target.startswith("unix:") or event.detail.get("family") == "unix":
        if target in ("", "unix:"):
            return None
        return View(("listen", program, "unix", unix_name(target)), "unix", target)
    ip, port = split_address(target)
    if not port and event.remote is not None and event.remote.port is not None:
        port = str(event.remote.port)
    proto = str(event.detail.get("proto") or "tcp")
    number = int(port) if port.isdigit() else 0
    if number == 0 and event.action == "bind":
        return None
    where = "loopback" if _LOOP.match(ip) and ip not in ("0.0.0.0", "::") else "any"
    return View(("listen", program, proto, where, "<high>" if number >= EPHEMERAL or number == 0 else port), where, target)


def weigh_listen(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    program, proto = view.tokens[1], view.tokens[2]
    what = f"{programs.base(program)} in {{workload}} listens on {view.path}"
    near = f"{programs.base(program)} never listened {'there' if depth > 1 else 'before'}"
    if proto == "unix":
        return Weight(0.6, what, near, "low", ())
    port = view.tokens[4]
    if port == "<high>":
        return Weight(4.0 if proto == "udp" else 0.5, what, near, "medium", ("T1571",))
    elsewhere = _listens(known, port)
    if elsewhere:
        return Weight(0.8, what, "another program listens there", "medium", ("T1571",))
    return Weight(0.3 if view.sort == "loopback" else 0.08, what, near, "medium" if view.sort == "loopback" else "high", ("T1571",))


def view_dns(event: Event) -> View | None:
    if event.action != "query" or not event.object:
        return None
    return _view_dns(event.object)


@lru_cache(maxsize=8192)
def _view_dns(asked: str) -> View:
    name = asked.rstrip(".").lower()
    if name.endswith((".in-addr.arpa", ".ip6.arpa")):
        return View(("dns", "arpa", "<address>"), "reverse", asked)
    top = domain(name)
    labels = name.removesuffix(top).rstrip(".").split(".")
    packed = max(map(len, labels)) >= 40 or sum(map(len, labels)) >= 80
    rest = ".".join(paths.segment(label) for label in labels[-6:])
    return View(("dns", top, (SPECIAL if packed else "") + rest), "packed" if packed else "plain", asked)


def weigh_dns(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    what = f"{{workload}} asked for {view.path}"
    if depth == 2:
        near = f"{len(nodes[-1].children or {})} names of {view.tokens[1]} are usual"
        return Weight(0.1 if view.sort == "packed" else 1.5, what, near, "medium" if view.sort == "packed" else "low", ("T1071.004",))
    usual = sorted((nodes[1].children or {}) if len(nodes) > 1 else [])
    near = f"usual domains: {', '.join(usual[:3])}" if usual else "it never asked for any name"
    odds = 2.0 if view.sort == "reverse" else 0.7 if "." not in view.tokens[1] else 0.1 if view.sort == "packed" else 0.2
    return Weight(odds, what, near, "medium", ("T1071.004",))


# --- privilege -------------------------------------------------------------------------------------------------------

_CALL_ODDS = {
    "ptrace": 0.1, "process_vm_readv": 0.1, "process_vm_writev": 0.1, "pidfd_getfd": 0.1, "bpf": 0.05, "mount": 0.1,
    "umount2": 0.2, "unshare": 0.2, "setns": 0.1, "chroot": 0.2, "pivot_root": 0.1, "clone": 0.3, "clone3": 0.3,
    "memfd_create": 0.5, "mprotect": 0.6, "mmap": 0.6, "capset": 0.8, "perf_event_open": 0.2, "socket": 0.15,
    "init_module": 0.02, "finit_module": 0.02, "kexec_load": 0.02, "settimeofday": 0.2, "clock_settime": 0.2,
}  # fmt: skip
_PRIVILEGE_ATTACK = {"ptrace": "T1055.008", "memfd_create": "T1620", "mount": "T1611", "unshare": "T1611", "setns": "T1611", "bpf": "T1014",
                     "mprotect": "T1055", "mmap": "T1055"}  # fmt: skip
_SHOWN_DETAIL = ("family", "type", "fstype", "request", "command", "which", "domain")


def view_privilege(event: Event) -> View | None:
    call = event.action
    detail = event.detail
    if event.result < 0 and event.result not in REFUSED:
        return None
    said: list[str] = []
    if call in SIGNALS:
        relation = detail.get("target_relation")
        if relation != "stranger":
            return None
        said = [f"signal {detail.get('signal', '?')}", "stranger"]
    elif call in ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"):
        said = [str(detail.get("target_relation", ""))]
    elif call in ("unshare", "setns", "clone", "clone3", "mount"):
        said = [event.flags or ""]
    if call in ("mount", "umount2", "chroot", "pivot_root", "move_mount") and event.object:
        said.append("/" + "/".join(paths.segments(event.object)))
    if detail.get("wx"):
        said.append("W+X")
    said += [f"{k}={detail[k]}" for k in _SHOWN_DETAIL if isinstance(detail.get(k), (str, int))]
    if event.result < 0:
        said.append("refused")
    line = " ".join(s for s in said if s)
    return View(("privilege", who(event), call, line), "refused" if event.result < 0 else "plain", event.object or call)


def weigh_privilege(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    _, program, call, line = view.tokens
    odds = _CALL_ODDS.get(call, 0.4)
    if call in ("mprotect", "mmap") and programs.tool(program) == "interpreter":
        odds = 3.0
    what = f"{programs.base(program)} in {{workload}} {'was refused' if view.sort == 'refused' else 'called'} {call} {line.replace(' refused', '')}".rstrip()
    if depth == 3:
        odds *= 1.5 if view.sort == "refused" else 3
        near = f"usual: {call} {sorted(nodes[3].children or {'': 0})[0]}".rstrip()
    else:
        near = f"{programs.base(program)} never called {call}"
        if view.sort == "refused":
            odds *= 0.7
    attack = (_PRIVILEGE_ATTACK[call],) if call in _PRIVILEGE_ATTACK else ("T1548",)
    return Weight(odds, what, near, "high" if odds <= 0.1 else "medium", attack)


Weigher = Callable[[View, int, list[Node], Known, Event], Weight]
KINDS: dict[str, Weigher] = {
    "exec": weigh_exec,
    "file": weigh_file,
    "connect": weigh_connect,
    "accept": weigh_accept,
    "listen": weigh_listen,
    "dns": weigh_dns,
    "privilege": weigh_privilege,
}
VIEWS: dict[str, Callable[[Event], View | None]] = {
    "exec": view_exec,
    "file": view_file,
    "connect": view_connect,
    "accept": view_accept,
    "listen": view_listen,
    "dns": view_dns,
    "privilege": view_privilege,
}


def value(tokens: tuple[str, ...]) -> str:
    """What a person types to accept or to forget it.

    >>> value(("exec", "/usr/bin/node", "!/bin/sh", "-c"))
    'exec /usr/bin/node -> /bin/sh -c'
    >>> value(("file", "/usr/bin/node", "write", "data", "<uuid>.jpg"))
    'file /usr/bin/node write /data/<uuid>.jpg'
    """
    kind, *rest = (t.lstrip(SPECIAL) for t in tokens)
    if kind == "exec":
        return f"exec {rest[0]} -> {' '.join(rest[1:])}".rstrip()
    if kind == "file":
        return f"file {rest[0]} {' '.join(rest[1:2])} /{'/'.join(rest[2:])}"
    if kind == "connect" and len(rest) == 4:
        return f"connect {rest[0]} {rest[1]} {rest[2]}:{rest[3]}"
    if kind == "listen" and len(rest) == 4:
        return f"listen {rest[0]} {rest[1]} {rest[2]}:{rest[3]}"
    if kind == "dns" and len(rest) == 2:
        return f"dns {'.'.join(p for p in (rest[1], rest[0]) if p)}"
    return " ".join((kind, *rest)).rstrip()
