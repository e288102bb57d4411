"""events: what the probes see."""

import difflib
import signal
from types import FrameType
from typing import Annotated, Any

import typer

from pipeline.cli.context import OK, options, say
from pipeline.cli.service import Json
from probes.event import KINDS

GLANCE = 3.0
"""Seconds that `wonted events` without -f looks."""


def register(app: typer.Typer) -> None:
    app.command()(events)


class Over(Exception):
    """The glance is over."""


def events(
    follow: Annotated[bool, typer.Option("-f", "--follow", help=f"Until Ctrl-C; else for {GLANCE:g} seconds.")] = False,
    workload: Annotated[str | None, typer.Option(metavar="W", help="Of this workload only.")] = None,
    kind: Annotated[str | None, typer.Option(metavar="K", help=", ".join(KINDS))] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Each one, before repeats are folded (but of a flood, equal ones as one).",
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Events as they happen."""
    from pipeline.cli.out import emit, line

    if kind is not None and kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        raise typer.BadParameter(
            f"--kind {kind}: " + (f"did you mean {near[0]}?" if near else "expected one of " + ", ".join(KINDS))
        )
    if not follow:
        signal.signal(signal.SIGALRM, _over)
    seen = False
    with options.client() as client:
        stream = client.stream("events", workload=workload, kind=kind, all=everything)
        try:
            if not follow:
                signal.setitimer(signal.ITIMER_REAL, GLANCE)
            for event in stream:
                seen = True
                if "dropped" in event and "workload" not in event:
                    say(f"wonted: {event['dropped']} events were skipped: this reader is too slow")
                elif json:
                    emit(event)
                else:
                    line(describe(event))
        except Over:
            if not seen:
                of = "".join(f" of {name}" for name in (kind, workload) if name)
                say(f"no event{of} in {GLANCE:g} s; -f waits for more, and `wonted workloads ls` lists who there is")
    return OK


def _over(_: int, __: FrameType | None) -> None:
    raise Over


def describe(event: dict[str, Any]) -> str:
    import shlex

    what = shlex.join(event["argv"]) if event["action"] == "exec" and event["argv"] else event["object"] or ""
    extra = [
        event["flags"] or "",
        f"= {event['result']}" if event["result"] < 0 else "",
        f"x{event['count']}" if event.get("count", 1) > 1 else "",
    ]
    parts = [event["time"][11:23], event["workload"], event["action"], f"{event['comm']}({event['pid']})", what, *extra]
    return "  ".join(part for part in parts if part)
