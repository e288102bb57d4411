"""file: program -> reading, writing, names, links or rights -> path."""

import re
from functools import lru_cache, partial

import msgspec

from models import paths, programs
from models.host import exposed
from models.kinds.exec import view_exec
from models.kinds.view import REFUSED, Known, View, Weight, who
from models.tree import ANY, SECRET, SPECIAL, Node, Tree, visits
from probes.event import Event

READ_ACTIONS = ("open_read",)
WRITE_ACTIONS = ("open_write", "create", "truncate", "mkdir")
NAME_ACTIONS = ("unlink", "rename", "rmdir")
LINK_ACTIONS = ("link", "symlink")


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
    if action == "utime":
        return "backdate" if event.detail.get("backdated") else "times"
    if action == "setxattr":
        return "capability" if event.detail.get("name") == "security.capability" else "attribute"
    if action == "chattr":
        return "lock" if event.flags and re.search("IMMUTABLE|APPEND", event.flags) else "attribute"
    if action == "removexattr":
        return "attribute"
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
    real = event.detail.get("real") if event.detail else None
    if (
        isinstance(real, str)
        and paths.place(real) in ("secret", "startup")
        and not (_OWN.match(path) and _PROCESS.match(real))
    ):
        path = real  # a link that leads to what is worth its name
    return _view_file(who(event), op, path, event.result < 0)


@lru_cache(maxsize=8192)
def _view_file(program: str, op: str, path: str, refused: bool) -> View:
    sort = paths.place(path)
    looks = op in ("read", "list")
    if looks and path == "/etc/ld.so.preload":
        sort = "system"  # the loader of every program reads it once it is there; that it was written is told
    if refused:
        op += " refused"
    if looks and path[:6] == "/proc/" and _OTHERS.match(path):
        return View(("file", program, op, "proc", "<n>", path.rsplit("/", 1)[-1]), "process", path)
    if looks and sort == "system":
        return View(("file", program, op, *paths.segments(path)[:2], "**"), sort, path)
    parts = paths.segments(path) or ("/",)
    if sort == "secret":
        parts = (*parts[:-1], SECRET + path.rsplit("/", 1)[-1])
    elif not looks and paths.is_runnable_name(path) and sort not in ("startup", "system"):
        parts = (*parts[:-1], SPECIAL + parts[-1])
        sort = "runnable:" + sort
    elif not looks and sort == "system" and ("/__pycache__" in path or path[:6] == "/proc/"):
        sort = "temp" if path[:6] != "/proc/" else "proc"
    return View(("file", program, op, *parts), sort, path)


_TMP = re.compile(r"^/(?:var/)?tmp/|^/dev/shm/")
_OWN, _PROCESS = re.compile(r"^/proc/(?:thread-)?self/"), re.compile(r"^/proc/\d+/")
_OTHERS = re.compile(r"^/proc/\d+/(?:cmdline|fd|exe|cwd|root|task)$")
"""What tells of other processes, walked by whoever looks for one."""
_HOMES = re.compile(
    r"^/(?:root|home(?:/[^/]+)?)?$|/\.(?:ssh|aws|kube|gnupg)$|^/etc/ssl/private$|^/(?:var/)?run/secrets(?:/|$)"
)


def _dir_known(tree: Tree, program: str, op: str, parts: tuple[str, ...]) -> bool:
    nodes, depth = tree.walk(("file", program, op, *parts[:-1]))
    return depth == len(parts) + 2 and _holds(parts, nodes[-1])


def _holds(parts: tuple[str, ...], directory: Node) -> bool:
    """Does a known directory hold what is known? Of `/` only the files that lie in it itself."""
    children = directory.children
    return bool(children) if len(parts) > 1 else any(child.n for child in children.values())


def _reads_files_of(tree: Tree, place: tuple[str, ...]) -> bool:
    nodes, depth = tree.walk(place)
    return depth == len(place) and any(child.n for child in nodes[-1].children.values())


FEW, OFTEN = 3, 30
"""Parts of a place at most, and visits to each at least, for who goes there to go to these."""


def _used(known: Known, parts: tuple[str, ...]) -> bool:
    """Does anybody here read or write in its directory?"""
    return any(_dir_known(known.tree, other, op, parts) for other in known.below("file") for op in ("read", "write"))


def _settled(tree: Tree, place: tuple[str, ...]) -> bool:
    nodes, depth = tree.walk(place)
    children = nodes[-1].children.values() if depth == len(place) else ()
    return 0 < len(children) <= FEW and all(visits(child) >= OFTEN for child in children)


_COPY_WITH_TIMES = programs.COPIERS | frozenset(
    "cp mv install git dpkg dpkg-deb rpm apk pip npm scp sftp make bsdtar pax".split()
)
_ACTION_VERBS = {
    "unlink": "removed",
    "rename": "renamed",
    "truncate": "truncated",
    "create": "created",
    "mkdir": "made",
}
_FILE_VERBS = {"read": "read", "list": "listed", "write": "wrote", "name": "removed or renamed", "link": "linked",
               "make runnable": "made runnable", "rights": "changed the rights of", "node": "made a node",
               "times": "changed the times of", "backdate": "set back the times of", "lock": "locked",
               "attribute": "changed the attributes of", "capability": "gave rights to"}  # fmt: skip


def weigh_file(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    _, program, op, *rest = view.tokens
    parts = tuple(rest)
    refused = op.endswith(" refused")
    op = op.removesuffix(" refused")
    name = programs.base(program)
    verb = _ACTION_VERBS.get(event.action, _FILE_VERBS[op])
    what = f"{name} {'was refused: ' if refused else ''}{verb} {view.path} in {{workload}}"
    near = partial(_file_near, view, depth, nodes, op, name)
    odds = _file_odds(view, op, depth, nodes, program, parts, known, event)
    if refused and "__pycache__" in parts:
        odds = 8.0  # each module that is imported for the first time, by whoever may not write beside it
    elif refused and op not in ("read", "list"):
        odds *= 0.5
    elif refused and odds < 30:
        odds = min(odds, 0.3)
    severity, attack = _file_severity(view, op, odds)
    return Weight(odds, what, near, severity, attack)


def _file_near(view: View, depth: int, nodes: list[Node], op: str, name: str) -> str:
    if depth <= 2:
        return f"{name} never {_FILE_VERBS[op]} anything before"
    kin = sorted(t.lstrip(SPECIAL) for t in nodes[-1].children)
    where = "/" + "/".join(view.tokens[3:depth])
    more = f" and {len(kin) - 2} more" if len(kin) > 2 else ""
    return (
        f"under {where} {name} usually {_FILE_VERBS[op]}: {', '.join(kin[:2])}{more}"
        if kin
        else f"{name} knows nothing under {where}"
    )


def _file_severity(view: View, op: str, odds: float) -> tuple[str, tuple[str, ...]]:
    sort = view.sort
    if sort == "secret":
        return "high", ("T1552.001",) if op == "read" else ("T1070",) if "_history" in view.path else ("T1098",)
    if sort == "startup" and op not in ("read", "list"):
        return "high", ("T1053.003",) if "cron" in view.path else ("T1543",)
    if op in ("make runnable", "lock"):
        return "medium", ("T1222.002",)
    if op == "capability":
        return "high", ("T1548.001",)
    if op == "backdate":
        return "medium" if odds < 0.5 else "low", ("T1070.006",)
    if op == "name" and paths.is_log(view.path):
        return "medium", ("T1070",)
    if op == "write" and (sort.startswith("runnable") or sort in ("code", "system")):
        return "medium", ("T1105",) if sort.startswith("runnable") else ("T1565",)
    return ("medium" if odds < 0.3 else "low"), ()


def _file_odds(
    view: View,
    op: str,
    depth: int,
    nodes: list[Node],
    program: str,
    parts: tuple[str, ...],
    known: Known,
    event: Event,
) -> float:
    sort = view.sort
    kind = programs.tool(program)
    viewer = programs.is_viewer(program)
    by_hand = viewer or kind in ("shell", "download", "network", "recon", "change")
    if sort == "null":
        return 40.0
    if op in ("read", "list"):
        return _read_odds(view, op, depth, program, parts, known, viewer)
    new_name = depth == len(view.tokens) - 1 and (len(parts) > 1 or _holds(parts, nodes[-1]))
    deep = depth >= 5
    volatile = "<" in parts[-1]
    if sort == "secret":
        return 0.03
    if sort == "startup":
        if known.host and not view.path.startswith(("/etc/", "/root/.", "/home/", "/var/spool/", "/usr/lib/systemd/")):
            return 0.1  # people at work make hooks and environments
        return 0.5 if known.host and _system_tool(program) else 0.02
    if sort == "proc":
        return 2.0 if re.match(r"^/proc/(?:self|thread-self|\d+)/", view.path) else 0.08
    written = _dir_known(known.tree, program, "write", parts)
    if op == "name":
        if written and not (event.action == "rename" and sort.startswith("runnable")):
            return 8.0
        if paths.is_log(view.path):
            return 0.1
        if sort in ("data", "other", "temp") and _tidies(event, program, parts, known):
            return 3.0
        if not new_name and sort in ("data", "other"):
            if event.action != "rename" and not _used(known, parts):
                return 0.15
            return 0.5  # it removes where it never made anything
    if op == "link":
        return 3.0 if new_name else 0.3
    if op == "node":
        return 0.1
    if op == "make runnable":
        return 3.0 if new_name else 0.15
    if op == "capability":
        return 0.5 if known.host and _system_tool(program) else 0.05
    if op == "lock":
        return 3.0 if new_name else 0.15
    if op in ("times", "attribute"):
        return 8.0 if new_name or written else 3.0
    if op == "backdate":
        return _backdate_odds(sort, program, new_name, written, by_hand, known)
    if op == "rights":
        return 4.0 if new_name else 2.0 if written else 0.5
    if sort.startswith("runnable"):
        if new_name:
            ending = parts[-1].rsplit(".", 1)[-1]
            if any(
                t.startswith(SPECIAL) and t.rsplit(".", 1)[-1] in (ending, SPECIAL + ANY) for t in nodes[-1].children
            ):
                return 1.5
        return 0.25
    if not new_name and sort in ("data", "other") and _read_only_here(known, parts):
        return 0.15 if by_hand else 0.3
    if sort in ("code", "system") and known.host and _system_tool(program):
        return 0.5
    if sort in ("code", "system"):
        return 2.0 if new_name and sort == "code" and not view.path.startswith("/etc/") else 0.1
    if sort == "temp":
        if volatile:
            return 4.0
        if new_name:
            return 1.5
        return 0.5 if by_hand else 0.8 if _TMP.match(view.path) and exposed(program, known) else 1.5
    if sort == "data":
        if new_name:
            return 2.0 if by_hand else 6.0
        if deep:
            return 0.8 if by_hand else 4.0
        return 0.5 if by_hand else 1.5
    return (2.0 if by_hand else 3.0) if new_name else 0.4


STEADY = 10
"""Runs of a program from which on it is known what it needs."""
_SYSTEM_PARTS = frozenset({"etc", "lib", "lib64", "usr", "proc", "sys", "dev"})


def _needs_no_files(program: str, known: Known) -> bool:
    """Was it run often, and never read anything but the system's own, as date does?"""
    read = known.below("file", program, "read")
    if not read or not read.keys() <= _SYSTEM_PARTS:
        return False
    runs = sum(
        way.n
        for started in known.below("exec").values()
        for token, node in started.children.items()
        if token.lstrip(SPECIAL) == program
        for way in node.children.values()
    )
    return runs >= STEADY


def _of_others(program: str, parts: tuple[str, ...], known: Known) -> bool:
    """Does it lie in a directory that other programs read, and this one never did?"""
    if len(parts) < 3 or _dir_known(known.tree, program, "read", parts):
        return False
    return any(_dir_known(known.tree, other, "read", parts) for other in known.below("file"))


def _tidies(event: Event, program: str, parts: tuple[str, ...], known: Known) -> bool:
    """Is its command line usual, and did it look through this directory before? What gets old is removed at last."""
    nodes, depth = known.tree.walk(("file", program, "list", *parts[:-1]))
    if depth < len(parts) + 2 or not nodes[-1].n:
        return False
    started = view_exec(msgspec.structs.replace(event, kind="exec", action="exec", result=0))
    if started is None:
        return False
    nodes, depth = known.tree.walk(started.tokens)
    return depth == len(started.tokens) and nodes[-1].n > 0


def _backdate_odds(sort: str, program: str, new_name: bool, written: bool, by_hand: bool, known: Known) -> float:
    """Whoever unpacks or copies gives what it has just written the time of the original. Who sets back the time of
    what is there already hides when it was changed."""
    if new_name:
        return 8.0  # it does so there
    if programs.base(program) in _COPY_WITH_TIMES:
        return 8.0 if written else 2.0
    if sort in ("code", "system") and not (known.host and _system_tool(program)):
        return 0.1
    if by_hand or programs.base(program) == "touch":
        return 0.15
    return 8.0 if written else 0.5


def _system_tool(program: str) -> bool:
    """A host's own program that changes what it is there to change: useradd, dpkg, sshd; no shell, no viewer."""
    kind = programs.tool(program)
    return paths.is_system(program) and not programs.is_viewer(program) and kind in (None, "change", "recon")


def _read_only_here(known: Known, parts: tuple[str, ...]) -> bool:
    """A directory that is read here and that nothing writes: content, not data."""
    others = known.below("file")
    return any(_dir_known(known.tree, p, "read", parts) for p in others) and not any(
        _dir_known(known.tree, p, "write", parts) for p in others
    )


def _read_odds(
    view: View, op: str, depth: int, program: str, parts: tuple[str, ...], known: Known, viewer: bool
) -> float:
    sort = view.sort
    if sort == "system":
        return 50.0
    if sort == "secret":
        if view.path[:6] == "/proc/":
            return 0.2
        if known.host and paths.is_scratch(view.path):
            return 2.0  # a build or a test makes what looks like one
        return 2.0 if known.host and _system_tool(program) and not exposed(program, known) else 0.02
    if depth <= 1 and program not in known.programs:
        return 30.0  # a program that is new itself has been told; what it then reads says little more
    if sort == "process":
        return 4.0 if known.host else 0.6
    if op == "list":
        return 0.6 if _HOMES.search(view.path) and not known.host else 3.0
    copier = programs.is_copier(program)
    if depth == 3 and copier:
        return 0.5
    if view.path.startswith("/etc/"):
        return 0.5 if viewer or copier else 0.8 if _of_others(program, parts, known) else 4.0
    if depth == 3 and sort in ("data", "code", "other") and exposed(program, known):
        return 0.7  # a server that never read anything in this part of the disk
    if depth == len(view.tokens) - 1:
        if (viewer or copier) and not _reads_files_of(known.tree, view.tokens[:-1]):
            return 0.8  # it knows only what lies deeper
        return 1.5 if viewer else 6.0
    if depth == 3 and sort in ("data", "temp", "other") and _needs_no_files(program, known):
        return 0.6
    odds = 0.5 if viewer else 4.0 if depth >= 5 else {"temp": 2.0, "data": 1.5, "code": 2.0}.get(sort, 0.7)
    if odds >= 2.0 or viewer:
        return odds
    if _used(known, parts):
        return 2.0
    if sort == "data" and known.below("listen", program) and _settled(known.tree, view.tokens[:depth]):
        return 0.8  # a server that reads the same parts of the data over and over, and now one that nobody here uses
    return odds
