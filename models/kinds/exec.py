"""exec: parent -> program -> shape of the command line."""

import re
from functools import lru_cache

from models import paths, programs
from models.kinds.view import REFUSED, Known, View, Weight, normal, who
from models.tree import SPECIAL, Node
from probes.event import Event

_URL = re.compile(
    r"^(?:https?|ftp|tcp|udp|ssh|git|s3|redis|postgres\w*|mysql|mongodb\S*|amqp)://(?:[^/@\s]*@)?\[?([^/:\]\s]+)"
)
_IP = re.compile(r"^\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?$")
_WORD = re.compile(r"^[a-z][a-z0-9_.-]{1,20}$")
_ASSIGN = re.compile(r"^\w+=\S*$")
_GLUE = frozenset(
    "if then else fi do done while until for case esac in { } ! exec command time nohup env sudo nice timeout".split()
)
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
            if (kind == "shell" and re.match(r"^-[a-z]*c[a-z]*$", option)) or _INLINE.get(name) == option:
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
def exec_name(program: str) -> tuple[str, str]:
    """(token, sort) of a program that is run.

    >>> exec_name("/usr/bin/wget"), exec_name("/tmp/build1234/x"), exec_name("/usr/sbin/nginx")
    (('!/usr/bin/wget', 'download'), ('!/tmp/build<n>/x', 'scratch'), ('/usr/sbin/nginx', 'plain'))
    """
    if paths.is_writable_place(program):
        own = (
            "hidden" if program.startswith(("/home/", "/root/")) else "writable"
        )  # where people install for themselves
        return SPECIAL + normal(program), "scratch" if paths.is_scratch(program) else own
    kind = programs.tool(program)
    return (SPECIAL + normal(program), kind) if kind else (normal(program), "plain")


def view_exec(event: Event) -> View | None:
    if event.action != "exec":
        return None
    process = event.process
    if event.result < 0:
        return _refused(event) if event.result in REFUSED and event.object else None
    program = programs.program(process) if process.exe else (event.object or programs.program(process))
    token, sort = exec_name(program)
    return View(("exec", normal(programs.parent(process)), token, shape(program, process.argv)), sort, program)


def _refused(event: Event) -> View:
    """The caller is still itself: what it wanted to be stands in the object and in detail "argv"."""
    program = event.object or "?"
    argv = event.detail.get("argv")
    token, sort = exec_name(program)
    line = shape(program, tuple(map(str, argv))) if isinstance(argv, (list, tuple)) else ""
    return View(("exec", who(event), token, ("refused " + line).strip()), sort, program)


_EXEC_NEW = {
    "writable": 0.03,
    "scratch": 0.03,
    "hidden": 0.03,
    "shell": 0.05,
    "download": 0.03,
    "network": 0.03,
    "recon": 0.1,
    "change": 0.1,
    "interpreter": 0.1,
}
_EXEC_MOVED = {
    "writable": 0.2,
    "scratch": 0.2,
    "hidden": 0.2,
    "shell": 0.3,
    "download": 0.1,
    "network": 0.1,
    "recon": 0.4,
    "change": 0.3,
    "interpreter": 0.4,
}
_EXEC_SEVERITY = {
    "writable": "high",
    "scratch": "high",
    "hidden": "high",
    "shell": "medium",
    "download": "high",
    "network": "high",
    "recon": "medium",
    "change": "medium",
}


def weigh_exec(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    _, parent, token, line = view.tokens
    program = view.path
    severity = _EXEC_SEVERITY.get(view.sort, "medium")
    refused = line.startswith("refused")
    if depth <= 2:
        if token.lstrip(SPECIAL) not in known.programs:
            odds = _EXEC_NEW.get(view.sort, 0.19)
            where = program.rsplit("/", 1)[0] or "/"
            kin = sum(1 for p in known.programs if p.rsplit("/", 1)[0] == where)
            others = f"{kin} other{'s' if kin > 1 else ''} of {where} {'are' if kin > 1 else 'is'} usual"
            near = others if kin else f"nothing was ever started from {where}"
            verb = "Refused program" if refused else "New program"
            typed = event.detail.get("path")
            shown = f"{typed} ({program})" if isinstance(typed, str) and event.result >= 0 else program
            return Weight(odds, f"{verb} in {{workload}}: {shown}", near, severity, _exec_attack(view.sort))
        odds = _EXEC_MOVED.get(view.sort, 0.7)
        if parent == "(start)":
            odds = max(odds, 3.0)
        parents = known.below("exec")
        usual = [p for p, node in parents.items() if token in node.children]
        near = (
            f"usually started by {', '.join(sorted(usual)[:3])}" if usual else "it is usual only as a running program"
        )
        return Weight(
            odds,
            f"{parent} ran {program} in {{workload}}",
            near,
            "low" if view.sort == "plain" else severity,
            _exec_attack(view.sort),
        )
    pair = nodes[3] if len(nodes) > 3 else nodes[-1]
    shapes = list(pair.children)
    words = {w for s in shapes for w in s.split(" ")}
    fresh = [w for w in line.split(" ") if w and w not in words]
    odds = _shape_odds(fresh, program, sum(c.n for c in pair.children.values()))
    if odds > 0.45 and sum(c.n for c in pair.children.values()) < 3:
        odds *= 4
    near = (
        f"usual: {programs.base(program)} {sorted(shapes)[0]}".rstrip()
        + (f" and {len(shapes) - 1} more" if len(shapes) > 1 else "")
        if shapes
        else "never run with arguments"
    )
    return Weight(
        odds,
        f"{programs.base(program)} run in a new way in {{workload}}: {' '.join(fresh) or line}",
        near,
        "low" if odds > 0.25 else "medium",
        ("T1059",) if view.sort in ("shell", "interpreter") else (),
    )


def _shape_odds(fresh: list[str], program: str, runs: int) -> float:
    """A known program with words it never had here. Each further one, and each run without, makes chance less likely.

    >>> _shape_odds(["-x"], "/bin/tar", 1), _shape_odds(["/", "-xdev", "-perm"], "/usr/bin/find", 30)
    (0.6, 0.09)
    """
    odds = min((_word_odds(w, program) for w in fresh), default=6.0)
    if runs >= STEADY and any(w.startswith("/") and w.endswith("/") for w in fresh):
        odds = min(odds, 0.8)  # it always kept to its directories
    telling = sum(w.startswith(("-", "/", "url:")) and "<" not in w for w in fresh)
    if runs >= STEADY and telling > 1 and any(w.startswith("-") for w in fresh):
        odds *= 0.6
    return odds * 0.5 ** max(0, min(telling, 4) - 1)


STEADY = 10
"""Runs of a program from which on its directories are known."""


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
    if (
        programs.tool(program) in ("shell", "interpreter")
        and word.startswith("/")
        and not word.endswith("/")
        and paths.is_writable_place(word)
    ):
        return 0.1
    if programs.tool(program) == "shell":
        return (
            0.1
            if programs.tool(word) in ("shell", "download", "network", "change") or programs.is_viewer(word)
            else 0.4
        )
    if word.startswith("/"):
        return 0.4 if programs.tool(program) == "interpreter" and not word.endswith("/") else 2.5
    return 6.0 if "<" in word else 1.5


_ATTACK = {
    "shell": ("T1059",),
    "interpreter": ("T1059",),
    "download": ("T1105",),
    "network": ("T1095",),
    "recon": ("T1082",),
    "writable": ("T1059", "T1036.005"),
    "scratch": ("T1059", "T1036.005"),
    "hidden": ("T1059", "T1036.005"),
}


def _exec_attack(sort: str) -> tuple[str, ...]:
    return _ATTACK.get(sort, ("T1059",))
