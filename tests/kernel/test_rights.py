"""What the probe process gives up once the programs are attached, and what it can still do."""

import json
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from probes import loader, rights

BEGIN = """
    import ctypes, errno, json, os, signal, subprocess, sys
    from probes import bpf, loader, rights
    def failure(call, *args):
        try:
            call(*args)
        except OSError as error:
            return errno.errorcode[error.errno]
    def tell(**facts):
        print(json.dumps(facts))
"""


def in_process(code: str, *args: str) -> dict[str, Any]:
    """What a process of its own told: rights that are gone do not come back."""
    text = textwrap.dedent(BEGIN) + textwrap.dedent(code)
    env = os.environ | {"PYTHONPATH": str(loader.ROOT)}
    done = subprocess.run([sys.executable, "-c", text, *args], capture_output=True, text=True, env=env, timeout=60)
    assert 0 == done.returncode, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_only_what_names_need_is_kept_in_every_set() -> None:
    told = in_process("rights.drop(lambda: None); tell(sets=rights.sets(), said=rights.describe())")

    kept = rights.mask(rights.KEPT)
    assert {"eff": kept, "prm": kept, "inh": 0, "amb": 0, "bnd": 0, "no_new_privs": 1} == told["sets"]
    expected = {"holds": ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"], "could_get": [], "no_new_privs": True}
    assert expected == told["said"]


def test_the_right_to_bpf_is_kept_where_maps_cannot_be_read_without_or_may_not_be_one_day() -> None:
    """Before 5.19 a sysctl that may be set at any time closes bpf(2) altogether."""
    code = """
        def refused():
            raise PermissionError(1, "no")
        rights.drop(refused if sys.argv[1] == "refused" else lambda: None, sys.argv[2])
        tell(holds=rights.describe()["holds"])
    """

    assert "CAP_BPF" in in_process(code, "refused", "6.1.0")["holds"]
    assert "CAP_BPF" in in_process(code, "read", "5.10.0-28-amd64")["holds"]
    assert "CAP_BPF" not in in_process(code, "read", "5.19.0")["holds"]


def test_after_the_drop_programs_cannot_be_loaded_and_rights_do_not_come_back(tmp_path: Path) -> None:
    """Neither by asking for them, nor by running a program, setuid or not."""
    program = tmp_path / "setuid"
    program.write_bytes(Path("/bin/cat").read_bytes())
    program.chmod(0o4755)
    os.chown(program, 0, 0)
    program.chmod(0o4755)
    told = in_process(
        """
        before = failure(bpf.load_nothing)
        rights.drop(lambda: None)
        def started(program):
            out = subprocess.run([program, "/proc/self/status"], capture_output=True, text=True).stdout
            return [line.split()[1].strip("0") for line in out.splitlines() if line.startswith("Cap")]
        tell(
            before=before,
            load=failure(bpf.load_nothing),
            attach=failure(bpf.attach_raw_tracepoint, "sys_exit", 0),
            again=failure(rights._capset, 1 << 21, 1 << 21),
            chroot=failure(os.chroot, "/"),
            chown=failure(os.chown, sys.argv[1], 1, 1),
            kill=failure(os.setuid, 12345),
            plain=started("/bin/cat"),
            setuid=started(sys.argv[1]),
        )
        """,
        str(program),
    )

    assert told["before"] is None
    assert ["EPERM"] * 5 == [told[name] for name in ("load", "again", "chroot", "chown", "kill")]
    assert told["attach"] in ("EPERM", "EBADF", "EINVAL")
    assert [""] * 5 == told["plain"] == told["setuid"]


def test_after_the_drop_maps_and_the_ring_are_read_and_processes_left_out() -> None:
    told = in_process(
        """
        attached = loader.attach({"file"}, [], 1 << 20)
        rights.drop(attached.reader.lost)
        attached.reader.drain()
        attached.add_self(os.getppid())
        attached.reader.quiet()
        left_out = bpf.lookup(attached._self, os.getppid().to_bytes(4, sys.byteorder), 1)
        attached.close()
        tell(left_out=left_out.hex(), holds=rights.describe()["holds"])
        """
    )

    assert "01" == told["left_out"]
    kernel = rights.version(platform.release())
    expected = ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", *(["CAP_BPF"] if kernel < rights.FREE_READING else [])]
    assert expected == told["holds"]


def test_files_and_processes_of_other_users_are_still_read(tmp_path: Path) -> None:
    """What names are made of: /proc of any user, and folders that only their owner may open."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for path in (folder / "config.json", folder):
        os.chown(path, 12345, 12345)
        path.chmod(0o700 if path == folder else 0o600)
    other = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user=12345, group=12345, extra_groups=[])
    told = in_process(
        """
        rights.drop(lambda: None)
        proc = f"/proc/{sys.argv[2]}/"
        tell(
            read=open(sys.argv[1] + "/config.json").read(),
            write=failure(open, sys.argv[1] + "/config.json", "w"),
            exe=failure(os.readlink, proc + "exe"),
            files=failure(os.listdir, proc + "fd"),
            space=failure(os.stat, proc + "ns/net"),
            environ=failure(open, proc + "environ"),
        )
        """,
        str(folder),
        str(other.pid),
    )
    other.communicate()

    seen = dict.fromkeys(("exe", "files", "space", "environ"))
    assert {"read": "{}", "write": "EACCES"} | seen == told


def test_the_wish_to_die_with_the_worker_outlives_the_drop() -> None:
    """The kernel clears it when rights are gained, not when they are lost."""
    told = in_process(
        """
        libc, wish = ctypes.CDLL(None), ctypes.c_int()
        libc.prctl(1, signal.SIGTERM)
        rights.drop(lambda: None)
        libc.prctl(2, ctypes.byref(wish))
        tell(wish=wish.value)
        """
    )

    assert {"wish": 15} == told
