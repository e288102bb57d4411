"""The same loads as load.c, where no C compiler is: the interpreter's own work dilutes every ratio."""

import ctypes
import json
import os
import resource
import shutil
import sys
import time


def cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def run(program: str) -> None:
    os.waitpid(os.posix_spawn(program, [program], {"LANG": "C"}), 0)


def main(what: str, *arguments: str) -> None:
    n, done, failed, before, start = int(arguments[0]), 0, 0, cpu(), time.monotonic()
    if what == "getppid":
        syscall = ctypes.CDLL(None).syscall
        for done in range(1, n + 1):  # noqa: B007
            syscall(110)
    elif what == "open":
        for done in range(1, n + 1):  # noqa: B007
            os.close(os.open(arguments[1], os.O_RDONLY))
    elif what == "forkexec":
        for done in range(1, n + 1):  # noqa: B007
            run(arguments[1])
    elif what == "opens":
        total, kinds, burst = n * int(arguments[1]), int(arguments[3]), max(1, n // 1000)
        for done in range(1, total + 1):
            try:
                os.close(os.open(f"{arguments[2]}/{(done - 1) % kinds if kinds else done - 1}", os.O_RDONLY))
            except OSError:
                failed += 1
            if done % burst == 0:
                time.sleep(max(0.0, start + done / n - time.monotonic()))
    elif what == "execs":
        for done in range(1, n + 1):
            path = f"{arguments[2]}/{done - 1}"
            shutil.copy("/bin/true", path)
            print(json.dumps({"path": path, "time": time.time_ns()}), flush=True)
            run(path)
            os.unlink(path)
            time.sleep(int(arguments[1]) / 1000)
    print(json.dumps({"done": done, "failed": failed, "cpu_s": cpu() - before, "wall_s": time.monotonic() - start}))


if __name__ == "__main__":
    main(*sys.argv[1:])
