"""All benchmarks, or the named ones: `python tests/benchmarks/run.py [latency] [losses] [cpu] [--json FILE]`.

Prints the machine and a table; nothing here is a test, nothing fails for being slow. About four minutes in all.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipeline.demo.service import Silent
from tests.benchmarks import cpu, latency, losses
from tests.benchmarks.common import Result, machine

PIECES = {"latency": latency.measure, "losses": losses.measure, "cpu": cpu.measure}


def show(result: Result) -> None:
    mark = {None: "", True: "met", False: "NOT MET"}[result.met]
    value = f"{result.value:.2f}" if result.unit in ("x", "%") else f"{result.value:.0f}"
    goal = f"{result.goal} {mark}".strip() if result.goal else ""
    print(f"{result.name:<66} {value:>9} {result.unit:<12} {goal:<16} {result.spread}")
    if result.note:
        print(f"    {result.note}")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help=f"of {', '.join(PIECES)}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    chosen = parser.parse_args()
    if unknown := set(chosen.pieces) - set(PIECES):
        parser.error(f"no such piece: {', '.join(sorted(unknown))}; there are {', '.join(PIECES)}")
    if os.geteuid() != 0:
        print("the benchmarks need root: eBPF and cgroups", file=sys.stderr)
        return 4
    facts, results, failed, start = machine(), [], 0, time.monotonic()
    print("; ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"{'':<66} {'value':>9} {'unit':<12} {'goal':<16} lowest..highest")
    for name in chosen.pieces or PIECES:
        print(f"-- {name}")
        try:
            for result in PIECES[name]():
                results.append(result)
                show(result)
        except (Silent, OSError, RuntimeError, TimeoutError) as error:
            failed += 1
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    print(f"{time.monotonic() - start:.0f} s")
    if chosen.json:
        body = {"machine": facts, "results": [json.loads(result.json()) for result in results], "failed": failed}
        chosen.json.write_text(json.dumps(body, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
