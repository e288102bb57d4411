"""A container by hand: `python -m pipeline.demo.cell TASK` enters namespaces and a cgroup, and runs one program there.

Prints the program's pid (the host's) and waits for its end. Killed, it takes the program along.
"""

import json
import os
import sys
from pathlib import Path

from pipeline.demo.network import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    call,
    die_with_parent,
    libc,
    mount,
    pivot_root,
    setns,
    unshare,
)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 2, 24, 38


def furnish(root: str, binds: list[str]) -> None:
    """Make `root` the root: the host's folders read-only, a /proc of its own, three devices."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount(root, root, None, MS_BIND | MS_REC)
    for path in binds:
        mount(path, root + path, None, MS_BIND)
        mount("none", root + path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID)
    for device in ("null", "zero", "urandom"):
        Path(root, "dev", device).touch()
        mount(f"/dev/{device}", f"{root}/dev/{device}", None, MS_BIND)
    mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(root)
    pivot_root(".", ".")
    call(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def restrict(keep: list[int]) -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        if capability not in keep:
            call(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "prctl")
    call(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def main() -> None:
    task = json.loads(sys.argv[1])
    die_with_parent()
    if task["netns"]:
        setns(os.open(task["netns"], os.O_RDONLY), CLONE_NEWNET)
    else:
        unshare(CLONE_NEWNET)
    unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC)
    read, write = os.pipe()  # close-on-exec: the reader's end of file says that the program runs
    child = os.fork()
    if child == 0:
        try:
            die_with_parent()
            Path(task["cgroup"], "cgroup.procs").write_text("0")
            call(libc.sethostname(b"shop", 4), "sethostname")
            furnish(task["root"], task["binds"])
            restrict(task["keep"])
            quiet = os.open("/dev/null", os.O_RDWR)
            for descriptor in (0, 1):
                os.dup2(quiet, descriptor)
            os.execve(task["command"][0], task["command"], task["environment"])
        except OSError as error:
            print(f"cell: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    os.close(write)
    os.read(read, 1)
    print(child, flush=True)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()
