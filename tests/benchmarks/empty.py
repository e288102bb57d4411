"""`python -m tests.benchmarks.empty`: an empty raw tracepoint on sys_exit, until stdin ends: every watcher's floor."""

import sys

from tests.benchmarks.kernel import load_empty

if __name__ == "__main__":
    load_empty("sys_exit")
    print("ready", flush=True)
    sys.stdin.read()
