"""What is bad wherever it happens: told from the first second, never learned by itself.

One row per rule. A row looks at one event and answers with what it saw, or None. Runtimes that prepare a container
(detail "runtime") are not looked at; `danger.allow` in the config and `wonted baseline accept` silence a row for a
workload and a program.
"""

# ruff: noqa: E501  tables: one row is one line

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import NamedTuple

from config.schema import Allow
from models import programs
from models.programs import program, tool
from probes.event import Event

METADATA = frozenset(
    {
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "fd00:ec2::254",
        "metadata.google.internal",
        "metadata.azure.internal",
    }
)
ENTERED_BY_HAND = frozenset(
    {"docker exec", "kubectl exec", "podman exec", "nerdctl exec", "crictl exec", "ctr exec", "runc exec"}
)
_WRITES = frozenset({"open_write", "create", "rename", "link", "symlink", "truncate", "mknod"})
_KERNEL_HANDLES = re.compile(
    r"/release_agent$|^/proc/sys/kernel/(?:core_pattern|modprobe|hotplug)$|/uevent_helper$|^/proc/sysrq-trigger$|/binfmt_misc/register$"
)
_ACCOUNTS = re.compile(r"^/etc/(?:passwd|shadow|gshadow|group|sudoers)$|^/etc/sudoers\.d/")
_KEYS = re.compile(r"/\.ssh/authorized_keys2?$|/authorized_keys\.d/")
_CRON = re.compile(r"^/etc/cron(?:tab$|\.[a-z]+/)|^/var/spool/cron/|^/etc/periodic/")
_ENGINE = re.compile(r"/(?:docker|containerd|crio|podman)\.sock$")
_DEVICE = re.compile(r"^/dev/(?:[svh]d[a-z]\d*|xvd[a-z]\d*|nvme\d+n\d+(?:p\d+)?|dm-\d+|mem|kmem|port)$")
_SYSTEM_EXE = re.compile(r"^/(?:usr/)?(?:local/)?s?bin/|^/(?:usr/)?lib(?:exec)?/")
_DEBUGGERS = frozenset("gdb gdbserver lldb strace ltrace perf rr delve dlv systemd-coredump".split())
_TO_STDIO = frozenset({"dup", "dup2", "dup3", "fcntl"})


class Danger(NamedTuple):
    rule: "Rule"
    saw: str


class Rule(NamedTuple):
    name: str
    on: frozenset[str]
    """Actions it looks at."""
    match: Callable[[Event], str | None]
    severity: str
    attack: tuple[str, ...]
    what: str
    """{who}: the program, {saw}: what the row answered, {workload}."""
    why: str


def _inside(event: Event) -> bool:
    return event.container is not None


def _done(event: Event) -> bool:
    return event.result >= 0


def _handles(event: Event) -> tuple[str, ...]:
    """Paths that this call changes."""
    to = event.detail.get("to") if event.detail else None
    if event.action in ("rename", "link") and isinstance(to, str):
        return (to,)
    return (event.object,) if event.object else ()


def _stdio(e: Event) -> str | None:
    """The peer of the connection that became a standard stream; a listening or unconnected socket has none."""
    peer = e.detail.get("stdio_socket")
    return str(peer) if peer and _done(e) and e.detail.get("stdio_direction") != "none" else None


def _reverse_shell(e: Event) -> str | None:
    kind = tool(program(e.process))
    # inetd, and servers like it, start their programs on the connection that came in; a shell there is a bind shell
    if kind == "interpreter" and e.detail.get("stdio_direction") == "in":
        return None
    return _stdio(e) if kind in ("shell", "interpreter", "network") else None


def _socket_stdio(e: Event) -> str | None:
    if not _inside(e) or e.detail.get("stdio_direction") == "in" or _reverse_shell(e):
        return None
    return _stdio(e)


def _memfd(e: Event) -> str | None:
    return (e.object or program(e.process)) if e.detail.get("memfd") and _done(e) else None


def _deleted(e: Event) -> str | None:
    return (
        (e.object or program(e.process)) if e.detail.get("deleted") and not e.detail.get("memfd") and _done(e) else None
    )


def _shared_memory(e: Event) -> str | None:
    exe = e.process.exe or e.object or ""
    path = next((p for p in (exe, e.object or "") if p.startswith(("/dev/shm/", "/run/shm/"))), None)
    if not path and e.detail.get("shm"):
        path = e.object or exe
    return path if path and _done(e) else None


def _ptrace(e: Event) -> str | None:
    if e.detail.get("target_relation") != "stranger" or not _done(e):
        return None
    if not _inside(e) and programs.base(program(e.process)) in _DEBUGGERS:
        return None
    return f"{e.action} of {e.detail.get('target_workload') or 'process'} {e.detail.get('target_pid', '')}".strip()


def _module(e: Event) -> str | None:
    if _inside(e) or not _SYSTEM_EXE.match(e.process.exe or ""):
        return ("" if _done(e) else "refused: ") + (e.object or e.action)
    return None


def _kernel_handle(e: Event) -> str | None:
    hit = next((p for p in _handles(e) if _KERNEL_HANDLES.search(p)), None)
    return hit if hit and (_inside(e) or not _SYSTEM_EXE.match(e.process.exe or "")) else None


def _preload(e: Event) -> str | None:
    return next((p for p in _handles(e) if p == "/etc/ld.so.preload"), None) if _done(e) else None


def _accounts(e: Event) -> str | None:
    return next((p for p in _handles(e) if _ACCOUNTS.search(p)), None) if _inside(e) and _done(e) else None


def _keys(e: Event) -> str | None:
    return next((p for p in _handles(e) if _KEYS.search(p)), None) if _inside(e) and _done(e) else None


def _cron(e: Event) -> str | None:
    return next((p for p in _handles(e) if _CRON.search(p)), None) if _inside(e) and _done(e) else None


def _metadata(e: Event) -> str | None:
    if e.action in ("query", "connect", "udp_send"):
        remote = e.remote
        seen = {remote.ip, remote.name} if remote is not None else set()
        text = (e.object or "").rstrip(".").lower()
        host = text if e.action == "query" else text.rpartition(":")[0].strip("[]")
        hit = next((m for m in (*seen, host, text) if m in METADATA), None)
        if hit and (
            tool(program(e.process)) in ("shell", "download", "network", "recon")
            or programs.is_viewer(program(e.process))
        ):
            return str(hit)
    return None


def _privileged(e: Event) -> str | None:
    return (
        (e.container.name or e.container.id[:12] if e.container else e.object or "?")
        if e.detail.get("privileged")
        else None
    )


def _engine_mounted(e: Event) -> str | None:
    return (
        (e.container.name or e.container.id[:12] if e.container else e.object or "?")
        if e.detail.get("engine_socket")
        else None
    )


def _leave(e: Event) -> str | None:
    return f"{e.detail.get('from', '?')} -> {e.detail.get('to', '?')}"


def _escape_call(e: Event) -> str | None:
    return " ".join(p for p in (e.action, e.object or "", e.flags or "") if p) if _inside(e) and _done(e) else None


def _setuid(e: Event) -> str | None:
    if e.action == "setxattr":
        given = e.detail.get("name") == "security.capability" and _inside(e) and _done(e)
        return f"{e.object} (capabilities)" if given else None
    mode = e.detail.get("mode")
    if not isinstance(mode, int) or not _inside(e) or not _done(e):
        return None
    # setgid with group write is how shared directories are made; a program with it is never group-writable
    if mode & 0o4000 or (mode & 0o2000 and mode & 0o010 and not mode & 0o1020):
        return f"{e.object} ({mode & 0o7777:04o})"
    return None


def _engine_connect(e: Event) -> str | None:
    text = (e.object or "").removeprefix("unix:")
    return text if _inside(e) and _ENGINE.search(text) else None


def _raw_device(e: Event) -> str | None:
    if not _inside(e) or not _done(e) or not e.object:
        return None
    if e.action == "mknod":
        mode = e.detail.get("mode")
        return f"made {e.object}" if isinstance(mode, int) and mode & 0o170000 == 0o060000 else None
    return e.object if _DEVICE.match(e.object) else None


def _bpf(e: Event) -> str | None:
    return "bpf" if _inside(e) and _done(e) else None


def _entered(e: Event) -> str | None:
    process = e.process
    if process.entered not in ENTERED_BY_HAND or not process.tty or not _done(e):
        return None
    if process.parent is not None and process.parent.entered == process.entered:
        return None
    return process.entered if tool(program(process)) == "shell" else None


def _on(*actions: str) -> frozenset[str]:
    return frozenset(actions)


RULES: tuple[Rule, ...] = (
    Rule("reverse_shell", _on("exec", *_TO_STDIO), _reverse_shell, "critical", ("T1059.004", "T1071"),
         "Reverse shell in {workload}: {who} with its input and output on {saw}", "A shell or interpreter reads from and writes to a network connection."),
    Rule("socket_as_stdio", _on("exec", *_TO_STDIO), _socket_stdio, "high", ("T1059.004",),
         "{who} in {workload} laid the connection to {saw} onto its standard input or output", "That is how a remote shell is prepared."),
    Rule("exec_memfd", _on("exec"), _memfd, "critical", ("T1620",),
         "Program run from memory in {workload}: {saw}", "It was started from a memory file: no file on disk holds it."),
    Rule("exec_deleted", _on("exec"), _deleted, "high", ("T1070.004", "T1036"),
         "Deleted program run in {workload}: {saw}", "Its file was gone from the disk when it started."),
    Rule("exec_shared_memory", _on("exec"), _shared_memory, "high", ("T1059", "T1027"),
         "Program run from shared memory in {workload}: {saw}", "Programs do not live in /dev/shm."),
    Rule("ptrace_stranger", _on("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"), _ptrace, "high", ("T1055.008",),
         "{who} in {workload} reached into another process: {saw}", "The target is neither its child nor its own."),
    Rule("kernel_module", _on("init_module", "finit_module", "kexec_load", "kexec_file_load"), _module, "critical", ("T1547.006",),
         "{who} in {workload} loads code into the kernel: {saw}", "Containers do not load kernel modules; on a host only system tools do."),
    Rule("kernel_handle", _WRITES, _kernel_handle, "critical", ("T1611",),
         "{who} in {workload} changed {saw}", "The kernel runs what is named there, outside any container."),
    Rule("preload", _WRITES, _preload, "critical", ("T1574.006",),
         "{who} in {workload} wrote {saw}", "Every program that starts afterwards loads what is named there."),
    Rule("accounts", _WRITES, _accounts, "high", ("T1136", "T1098"),
         "{who} in {workload} changed {saw}", "Accounts and rights of a running container were changed."),
    Rule("authorized_keys", _WRITES, _keys, "high", ("T1098.004",),
         "{who} in {workload} changed {saw}", "Whoever holds a key in it can log in."),
    Rule("cron_entry", _WRITES, _cron, "high", ("T1053.003",),
         "{who} in {workload} changed the timetable {saw}", "What is named there is run again and again."),
    Rule("cloud_metadata", _on("query", "connect", "udp_send"), _metadata, "high", ("T1552.005",),
         "{who} in {workload} asked the cloud's metadata service ({saw})", "It hands out the machine's credentials; shells and download tools have no business there."),
    Rule("privileged_container", _on("container_start"), _privileged, "high", ("T1610", "T1611"),
         "Privileged container started: {saw} ({workload})", "It has all rights of the host."),
    Rule("engine_socket_mounted", _on("container_start"), _engine_mounted, "high", ("T1610", "T1611"),
         "Container started with the engine's socket: {saw} ({workload})", "Whoever holds the socket can start privileged containers."),
    Rule("leave_cgroup", _on("leave_cgroup"), _leave, "critical", ("T1611",),
         "{who} left the cgroup of {workload}: {saw}", "A process of a container does not leave it."),
    Rule("namespace_escape", _on("setns", "mount", "move_mount", "fsmount", "unshare", "pivot_root", "open_tree", "mount_setattr"), _escape_call,
         "high", ("T1611",), "{who} in {workload} called {saw}", "Inside a container only the runtime does this, before the first program."),
    Rule("setuid_bit", _on("chmod", "mknod", "create", "setxattr"), _setuid, "high", ("T1548.001",),
         "{who} in {workload} made {saw} run with another user's rights", "The set-user-id bit, or capabilities, were set in a running container."),
    Rule("engine_socket", _on("connect"), _engine_connect, "high", ("T1611", "T1610"),
         "{who} in {workload} talks to the container engine: {saw}", "It can start privileged containers from there."),
    Rule("raw_device", _on("open_read", "open_write", "create", "mknod"), _raw_device, "high", ("T1611", "T1006"),
         "{who} in {workload} opened the raw device {saw}", "It reaches the host's disk or memory past all files."),
    Rule("bpf_load", _on("bpf"), _bpf, "high", ("T1014",),
         "{who} in {workload} used bpf", "Containers do not load programs into the kernel."),
    Rule("shell_entered", _on("exec"), _entered, "medium", ("T1609",),
         "Shell by {saw} in {workload}: {who}", "Somebody opened an interactive shell in the container."),
)  # fmt: skip

BY_ACTION: dict[str, tuple[Rule, ...]] = {
    action: tuple(r for r in RULES if action in r.on) for action in {a for r in RULES for a in r.on}
}


def _dull(path: str) -> bool:
    return path.startswith(_DULL) and not path.endswith(
        ("authorized_keys", "authorized_keys2", "release_agent", "uevent_helper", "register")
    )


_DULL = ("/data/", "/srv/", "/tmp/", "/var/lib/", "/var/log/", "/var/cache/", "/app/")
"""Nothing that a rule names is written under these; `authorized_keys` and `release_agent` are looked for all the same."""


def match(event: Event) -> Danger | None:
    """The first row that applies. What a runtime does to prepare a container is not looked at."""
    action = event.action
    if action == "open_read" and (not event.object or not event.object.startswith("/dev/")):
        return None  # of what is read, only devices are looked at
    rules = BY_ACTION.get(action)
    if not rules or event.kind == "rate":
        return None
    if action in _WRITES and not event.detail and _dull(event.object or ""):
        return None
    if event.detail and (event.detail.get("runtime") or event.detail.get("seeded")):
        return None
    if event.process.entered == "runtime":
        return None
    for rule in rules:
        saw = rule.match(event)
        if saw is not None:
            return Danger(rule, saw)
    return None


def allowed(rule: str, workload: str, exe: str, allow: list[Allow]) -> bool:
    """
    >>> allowed("exec_memfd", "shop/ci:job", "/usr/bin/runc", [Allow(rule="exec_*", workload="shop/*")])
    True
    """
    return any(
        fnmatchcase(rule, a.rule) and fnmatchcase(workload, a.workload) and fnmatchcase(exe, a.exe) for a in allow
    )
