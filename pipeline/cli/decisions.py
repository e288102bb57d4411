"""baseline confirm, lock, unlock, snooze, undo, decisions, export, import."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.context import CONFIG, FAILURE, OK, Stop, options, say
from pipeline.cli.service import Json
from pipeline.cli.workloads import Name, Reason, decide, noted

Author = Annotated[str | None, typer.Option(help="Who decides; by default who is logged in.")]
For = Annotated[str | None, typer.Option("--for", metavar="TIME", help="How long: 90s, 2h, 7d. By default for good.")]
Kind = Annotated[str | None, typer.Option(metavar="KIND", help="This kind only, such as exec.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[W...]", help="Workloads or patterns; by default all.")]


def commands(group: typer.Typer) -> None:
    for command in (confirm, lock, unlock, snooze, undo, decisions, export):
        group.command()(command)
    group.command("import")(import_)


def length(text: str | None) -> float | None:
    """Seconds of --for."""
    from pipeline.cli.alerts import seconds

    if text is None:
        return None
    span = seconds(text)
    if span <= 0:
        raise typer.BadParameter(f"--for {text}: expected a time such as 90s, 2h or 7d")
    return span


def confirm(
    alert: Annotated[str, typer.Argument(metavar="ID", help="An alert's id (al_...), or a workload.")],
    value: Annotated[str | None, typer.Argument(help="With a workload: the value.")] = None,
    reason: Reason = None,
    author: Author = None,
    json: Json = False,
) -> int:
    """This was an incident: never learned, always told, not counted as a false alert."""
    workload, value = (None, alert) if value is None else (alert, value)
    return decide("confirm", workload, value=value, reason=reason, json=json, author=author)


def lock(workload: Name, kind: Kind = None, reason: Reason = None, author: Author = None, json: Json = False) -> int:
    """Learn nothing new until it is unlocked; tell all that is new."""
    return decide("lock", workload, reason=reason, json=json, kind=kind, author=author)


def unlock(workload: Name, kind: Kind = None, reason: Reason = None, author: Author = None, json: Json = False) -> int:
    """Learn again."""
    return decide("unlock", workload, reason=reason, json=json, kind=kind, author=author)


def snooze(
    target: Annotated[str, typer.Argument(metavar="ID|W", help="An alert's id (al_...): its value. Or a workload.")],
    span: Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 90s, 2h, 7d.")],
    reason: Reason = None,
    author: Author = None,
    json: Json = False,
) -> int:
    """Tell nothing for a while. It is still found, and listed by `wonted alerts`; dangers are told all the same."""
    workload, value = (None, target) if target.startswith("al_") else (target, None)
    return decide("snooze", workload, value=value, reason=reason, json=json, for_s=length(span), author=author)


def undo(
    id: Annotated[str, typer.Argument(metavar="DECISION", help="Its id (de_...), or how that begins.")],
    reason: Reason = None,
    author: Author = None,
    json: Json = False,
) -> int:
    """Take a decision back: verdicts are again what they were before it."""
    return decide("undo", None, value=id, reason=reason, json=json, author=author)


def decisions(
    workloads: Names = None,
    all: Annotated[bool, typer.Option("--all", help="Also what is not in force any more.")] = False,
    json: Json = False,
) -> int:
    """What people decided, by workload; what is in force, and what each kept silent."""
    from pipeline.cli.out import emit, line

    with options.client() as client:
        rows = client.call("decisions", workloads=workloads, all=all)
        noted(client)
    if json:
        for row in rows:
            emit(row)
        return OK
    for name in dict.fromkeys(row["workload"] for row in rows):
        line(f"{name}:")
        listing([row for row in rows if row["workload"] == name], ended=all)
    if not rows:
        say("nothing decided yet")
    return OK


def listing(rows: list[dict[str, Any]], ended: bool = False) -> None:
    from pipeline.cli.out import table

    columns = ("id", "what", "who", "when", "until", "silent#", "why", "of")
    table(
        (*columns, "in force") if ended else columns,
        [
            (
                row["id"][:11],
                row["action"],
                row["author"],
                row["time"][:16],
                (row["until"] or "")[:16] or "for good",
                row["silenced"],
                row["reason"],
                row["means"] or row["value"] or row["kind"] or "all of it",
                *((row["in_force"],) if ended else ()),
            )
            for row in rows
        ],
    )


def export(workloads: Names = None) -> int:
    """All that is in force, as YAML that fits in git: stable order, plain ASCII."""
    from pipeline.cli.out import write
    from pipeline.decisions import to_yaml

    with options.client() as client:
        rows = client.call("decisions", workloads=workloads)
        noted(client)
    write(to_yaml(rows))
    say(f"{len(rows)} decisions")
    return OK


def import_(
    file: Annotated[Path, typer.Argument(help="What `baseline export` wrote; - for stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be new; change nothing.")] = False,
    json: Json = False,
) -> int:
    """Bring into force what a file says. What is so already stays; where one is refused, none is taken."""
    from pipeline.cli.out import emit, line
    from pipeline.decisions import from_yaml
    from pipeline.sinks.text import visible

    name = "stdin" if str(file) == "-" else str(file)
    raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        read = from_yaml(raw.decode(), name)
    except UnicodeDecodeError as error:
        at = raw[: error.start].count(b"\n") + 1
        raise Stop(CONFIG, f"{name}:{at}: not UTF-8; `wonted baseline export` writes plain ASCII") from None
    if read.problems:
        raise Stop(CONFIG, "\n".join(visible(str(problem)) for problem in read.problems))
    with options.client() as client:
        found = client.call("import", decisions=read.decisions, dry_run=dry_run)
    steps = list(zip(read.places, found["decisions"], strict=True))
    for place, step in steps:
        if json:
            emit({"place": str(place), **step})
        elif step["outcome"] != "refused":
            line(f"{step['outcome']:5} {step['text']}")
    refused = [f"{place}: {step['text']}" for place, step in steps if step["outcome"] == "refused"]
    counts = {name: sum(step["outcome"] == name for _, step in steps) for name in ("new", "same", "over", "later")}
    if refused:
        raise Stop(FAILURE, "\n".join([*map(visible, refused), "wonted: nothing was taken in"]))
    done = "would be taken in" if dry_run else "taken in"
    later = f", {counts['later']} kept for workloads that were not seen yet" if counts["later"] else ""
    say(f"{counts['new']} {done}, {counts['same']} in force already, {counts['over']} over{later}")
    return OK
