"""All benchmarks, or the named ones: `make bench ARGS="cost --quick"`.

Prints the machine and tables; nothing here is a test, nothing fails for being slow. How to read it: docs/cost.md.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from config import VERSION
from pipeline.client import ClientError
from pipeline.demo.service import Silent
from tests.benchmarks import cost, flat, flood, kernel, latency, losses
from tests.benchmarks.common import Result, machine
from tests.benchmarks.cost import Plan
from tests.benchmarks.figures import Table
from tests.benchmarks.loads import LOADS
from tests.benchmarks.variants import VARIANTS

Said = Result | Table | str
"""A value, a table, or a remark."""
HEAD = ("", "value", "", "goal", "lowest..highest")

PIECES: dict[str, tuple[str, Callable[[Plan], Iterable[Said]]]] = {
    "cost": ("what a workload pays: loads x variants", cost.measure),
    "flat": ("the same with a thousand cgroups; the probe's memory", lambda plan: flat.measure()),
    "latency": ("from the system call to the alert", lambda plan: latency.measure()),
    "losses": ("events lost in bursts; memory in all", lambda plan: losses.measure()),
    "flood": ("what a flood does to the others; events a second", lambda plan: flood.measure(plan.scale < 1)),
}


def row(result: Result) -> list[str]:
    digits = 2 if result.unit in ("x", "%", "% of a core") else 0
    mark = {None: "", True: "met", False: "NOT MET"}[result.met]
    goal = f"{result.goal} {mark}".strip()
    return [result.name, f"{result.value:,.{digits}f}", result.unit, goal, result.spread]


def show(said: Said) -> None:
    if isinstance(said, Table):
        print("\n" + said.text())
    elif isinstance(said, str):
        print(f"   {said}")
    else:
        name, value, unit, goal, spread = row(said)
        print(f"{name:<66} {value:>9} {unit:<12} {goal:<16} {spread}")
        if said.note:
            print(f"    {said.note}")
    sys.stdout.flush()


def page(facts: dict[str, str], sections: dict[str, tuple[float, list[Said]]], command: str) -> str:
    """Everything that was printed, as markdown."""
    lines = ["", f"Measured {facts['date']} by `{command}`.", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts.items() if key != "date"]
    for name, (seconds, said) in sections.items():
        lines += ["", f"## {name}: {PIECES[name][0]}", "", f"{seconds:.0f} s."]
        results = [one for one in said if isinstance(one, Result)]
        for table in (one for one in said if isinstance(one, Table)):
            lines += ["", table.markdown()]
        if results:
            rows = [[*row(one), one.note] for one in results]
            lines += ["", Table("Values", (*HEAD, "conditions"), rows).markdown()]
        lines += [f"\n{one}." for one in said if isinstance(one, str)]
    return "\n".join(lines) + "\n"


BEGIN = '<!-- what follows is written by make bench ARGS="--markdown FILE" -->'


def write(file: Path, text: str) -> None:
    """Below the mark where the file has one, so that what people wrote above it stays."""
    head = file.read_text().split(BEGIN)[0] if file.exists() and BEGIN in file.read_text() else "# Cost\n\n"
    file.write_text(f"{head}{BEGIN}\n{text}")


def chosen(parser: argparse.ArgumentParser, what: str, names: Iterable[str] | None, of: Sequence[Any]) -> list[Any]:
    """Those of the visible tuple that are named; all, where none is."""
    known = {one.name: one for one in of}
    wanted = set(names or ())
    if unknown := wanted - set(known):
        parser.error(f"no such {what}: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    return [one for name, one in known.items() if not wanted or name in wanted]


def main() -> int:
    about = "\n".join(f"  {name:<9} {title}" for name, (title, _) in PIECES.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=f"{__doc__}\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help="of those above; default: all")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"of cost; default {cost.ROUNDS}")
    parser.add_argument("--only", metavar="A,B", help=f"of cost: {','.join(x.name for x in LOADS)}")
    parser.add_argument(
        "--variants", metavar="A,B", help=f"of cost: {','.join(x.name for x in VARIANTS)}; the first always"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write a page; what is above its mark stays")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    asked = parser.parse_args()
    names = [VARIANTS[0].name, *asked.variants.split(",")] if asked.variants else None
    plan = Plan(
        chosen(parser, "load", asked.only and asked.only.split(","), LOADS),
        chosen(parser, "variant", names, VARIANTS),
        asked.rounds or (1 if asked.quick else cost.ROUNDS),
        cost.QUICK if asked.quick else 1.0,
    )
    if unknown := set(asked.pieces) - set(PIECES):
        parser.error(f"no such piece: {', '.join(sorted(unknown))}; there are {', '.join(PIECES)}")
    if os.geteuid() != 0:
        print("the benchmarks need root: eBPF and cgroups", file=sys.stderr)
        return 4
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # nginx is there, and su leaves them out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, and cgroups go
    pieces = asked.pieces or (["cost"] if asked.only or asked.variants else list(PIECES))
    facts = conditions()
    print("; ".join(f"{key} {value}" for key, value in facts.items()))
    sections, failed = measure(pieces, plan)
    facts["load average"] += f" at the start, {' '.join(f'{x:.1f}' for x in os.getloadavg())} at the end"
    if asked.markdown:
        write(asked.markdown, page(facts, sections, command(asked)))
    if asked.json:
        results = [json.loads(one.json()) for _, said in sections.values() for one in said if isinstance(one, Result)]
        asked.json.write_text(json.dumps({"machine": facts, "results": results, "failed": failed}, indent=1) + "\n")
    return 1 if failed else 0


def command(asked: argparse.Namespace) -> str:
    """How to measure the same again."""
    words = [*asked.pieces, *(["--quick"] if asked.quick else [])]
    for name in ("rounds", "only", "variants"):
        if value := getattr(asked, name):
            words += [f"--{name}", str(value)]
    return f'make bench ARGS="{" ".join(words)}"' if words else "make bench"


def measure(pieces: Sequence[str], plan: Plan) -> tuple[dict[str, tuple[float, list[Said]]], int]:
    sections: dict[str, tuple[float, list[Said]]] = {}
    failed, begun = 0, time.monotonic()
    for name in pieces:
        title, piece = PIECES[name]
        print(f"\n-- {name}: {title}", flush=True)
        start, said = time.monotonic(), list[Said]()
        try:
            for one in piece(plan):
                said.append(one)
                show(one)
        except (Silent, ClientError, OSError, RuntimeError, TimeoutError) as error:
            failed += 1
            said.append(f"{name} ended early: {type(error).__name__}: {error}")
            print(said[-1], file=sys.stderr)
        sections[name] = (time.monotonic() - start, said)
        print(f"   {sections[name][0]:.0f} s", flush=True)
    print(f"{time.monotonic() - begun:.0f} s in all")
    return sections, failed


def conditions() -> dict[str, str]:
    """The machine, the day, and what was attached to it already."""
    facts = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", **machine()}
    facts["load average"] = facts.pop("load")
    kinds = list(kernel.watching().values())
    found = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    facts["Wonted"] = f"{VERSION}, {revision()}"
    return facts | {"attached by others at the start": found or "nothing"}


def revision() -> str:
    """Of the programs that were measured."""
    command = ["git", "-C", str(Path(__file__).parent), "log", "-1", "--format=revision %h of %cs"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "revision unknown"


if __name__ == "__main__":
    sys.exit(main())
