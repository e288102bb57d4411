"""privilege: program -> call -> detail."""

from models import paths, programs
from models.kinds.view import REFUSED, Known, View, Weight, normal, who
from models.tree import Node
from probes.event import Event

SIGNALS = ("kill", "tkill", "tgkill", "pidfd_send_signal")

_CALL_ODDS = {
    "ptrace": 0.1, "process_vm_readv": 0.1, "process_vm_writev": 0.1, "pidfd_getfd": 0.1, "bpf": 0.05, "mount": 0.1,
    "umount2": 0.2, "unshare": 0.2, "setns": 0.1, "chroot": 0.2, "pivot_root": 0.1, "clone": 0.3, "clone3": 0.3,
    "memfd_create": 0.5, "mprotect": 0.5, "mmap": 0.5, "pkey_mprotect": 0.5, "capset": 2.0, "perf_event_open": 0.2,
    "socket": 0.15, "init_module": 0.02, "finit_module": 0.02, "kexec_load": 0.02, "settimeofday": 0.2,
    "clock_settime": 0.2, "adjtimex": 0.2, "clock_adjtime": 0.2, "sethostname": 0.2, "setdomainname": 0.2,
    "userfaultfd": 0.2, "io_uring_setup": 0.5, "add_key": 0.4, "request_key": 0.4, "keyctl": 0.3,
}  # fmt: skip
_PRIVILEGE_ATTACK = {
    "ptrace": "T1055.008",
    "memfd_create": "T1620",
    "mount": "T1611",
    "unshare": "T1611",
    "setns": "T1611",
    "bpf": "T1014",
    "mprotect": "T1055",
    "mmap": "T1055",
    "kill": "T1489",
    "settimeofday": "T1070.006",
    "clock_settime": "T1070.006",
    "keyctl": "T1555",
    "socket": "T1040",
}
_NETLINK = {"route": 20.0, "generic": 4.0, "uevent": 4.0, "sock_diag": 1.0, "audit": 1.0}
"""Of netlink's sockets: nearly every program asks for the machine's addresses through "route"."""
_KEYRING = ("GET_KEYRING_ID", "JOIN_SESSION_KEYRING", "LINK", "SETPERM", "CAPABILITIES", "DESCRIBE")
"""What a log-in does with its own keys."""
_IDS = frozenset("setuid setgid setreuid setregid setgroups setresuid setresgid setfsuid setfsgid".split())
_DIRECTION = {"in": "of an accepted connection", "out": "of its own connection", "none": "of an unconnected socket"}
_MEMORY = ("mmap", "mprotect", "pkey_mprotect")
_JIT = frozenset(
    "java node nodejs deno bun dotnet mono luajit lua ruby php php-fpm pypy julia chrome firefox qemu".split()
)
"""They make code as they run; whoever watches them from the middle may see it late."""
_ASKING = frozenset("SIGHUP SIGUSR1 SIGUSR2 SIGWINCH SIGCHLD SIGIO SIGCONT".split())
"""Signals that ask for something, as a log rotation does; the others stop a program."""
_SHOWN_DETAIL = ("family", "type", "protocol", "fstype", "request", "command", "which", "domain")


def view_privilege(event: Event) -> View | None:
    call = event.action
    detail = event.detail
    if event.result < 0 and event.result not in REFUSED:
        return None
    said: list[str] = []
    if call in SIGNALS:
        relation = detail.get("target_relation")
        if relation not in ("stranger", "neighbour"):
            return None
        target = detail.get("target_exe")
        said = [str(detail.get("signal", "?")), normal(target) if isinstance(target, str) else str(relation)]
    elif call in ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"):
        said = [str(detail.get("target_relation", ""))]
    elif call in ("unshare", "setns", "clone", "clone3", "mount"):
        said = [event.flags or ""]
    if call in ("mount", "umount2", "chroot", "pivot_root", "move_mount") and event.object:
        said.append("/" + "/".join(paths.segments(event.object)))
    elif call in _IDS and event.object:
        said = ["to root" if "0" in event.object.split(",") else "to a user"]
    elif detail.get("stdio_direction"):
        said = [_DIRECTION.get(str(detail["stdio_direction"]), "")]
    if detail.get("wx"):
        said.append("W+X")
    said += [f"{k}={detail[k]}" for k in _SHOWN_DETAIL if isinstance(detail.get(k), (str, int))]
    if event.result < 0:
        said.append("refused")
    line = " ".join(s for s in said if s)
    sort = "refused" if event.result < 0 else "asking" if call in SIGNALS and said[0] in _ASKING else "plain"
    return View(("privilege", who(event), call, line), sort, event.object or call)


def _makes_code(program: str, known: Known) -> bool:
    return any("W+X" in line for call in _MEMORY for line in known.below("privilege", program, call))


def weigh_privilege(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    _, program, call, line = view.tokens
    odds = _CALL_ODDS.get(call, 0.4)
    if call == "socket" and event.detail.get("family") == "netlink":
        odds = _NETLINK.get(str(event.detail.get("protocol")), 0.4)
    if call == "keyctl" and event.detail.get("command") in _KEYRING:
        odds = 2.0
    if "to a user" in line or call == "setgroups":
        odds = 3.0  # giving up rights
    if call in SIGNALS:
        # another signal, or another target, is another act
        odds = 0.3 if view.sort != "asking" else 0.8 if depth < 3 and programs.tool(program) != "shell" else 2.0
    if call in _MEMORY and (programs.base(program) in _JIT or _makes_code(program, known)):
        odds = 3.0
    verb, shown = ("was refused" if view.sort == "refused" else "called"), line.removesuffix("refused").strip()
    what = f"{programs.base(program)} in {{workload}} {verb} {call} {shown}".rstrip()
    if depth == 3:
        odds *= 1.0 if call in SIGNALS else 1.5 if view.sort == "refused" else 3
        near = f"usual: {call} {min(nodes[3].children or ('',))}".rstrip()
    else:
        near = f"{programs.base(program)} never called {call}"
        if view.sort == "refused":
            odds *= 0.7
    attack = (_PRIVILEGE_ATTACK[call],) if call in _PRIVILEGE_ATTACK else ("T1548",)
    severity = "high" if odds <= 0.1 else "low" if call == "socket" and odds >= 1.0 else "medium"
    return Weight(odds, what, near, severity, attack)
