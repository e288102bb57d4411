"""workloads ls, show, learn, enforce."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.context import OK, options, say
from pipeline.cli.service import Json

if TYPE_CHECKING:
    from pipeline.client import Client

Name = Annotated[str, typer.Argument(metavar="W", help="A workload: its name, a unique prefix, or a shell pattern.")]
Reason = Annotated[str | None, typer.Option(help="Why, for whoever looks later.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="What is watched, and how far it is learned.", no_args_is_help=True)
    group.command("ls")(ls)
    group.command()(show)
    group.command()(learn)
    group.command()(enforce)
    app.add_typer(group, name="workloads")


def ls(json: Json = False) -> int:
    """Every workload: mode, progress, time to go, what was seen and lost."""
    from pipeline.cli.out import emit, span, table

    with options.client() as client:
        rows = client.call("workloads")
        noted(client)
    if json:
        for row in rows:
            emit(row)
        return OK
    columns = ("workload", "mode", "progress#", "to go", "containers#", "events#", "alerts#", "lost#")
    table(columns, [(r["workload"], mode(r), percent(r["progress"]), span(r["eta_s"]), *tail(r)) for r in rows])
    if not rows:
        say("no workload seen yet; they appear as their processes act")
    return OK


def noted(client: "Client") -> None:
    """What an answer leaves out."""
    from pipeline.sinks.text import visible

    if client.note:
        say(f"wonted: {visible(client.note)}")


def tail(row: dict[str, Any]) -> tuple[object, ...]:
    return tuple(row.get(name) for name in ("containers", "events", "alerts", "lost"))


def mode(row: dict[str, Any]) -> str:
    """Learning that the clock ended cannot keep a promise per week: say how far the evidence was."""
    return f"forced: evidence {percent(row.get('evidence'))}" if row["mode"] == "forced" else str(row["mode"])


def percent(part: float | None) -> str:
    return "-" if part is None else f"{int(part * 100)} %"


def show(workload: Name, json: Json = False) -> int:
    """One workload."""
    from pipeline.cli.out import emit

    with options.client() as client:
        found = client.call("workload", workload=workload)
    if json:
        emit(found)
    else:
        outline(found)
    return OK


def outline(found: dict[str, Any]) -> None:
    """The facts, then how far each kind of event is learned."""
    from pipeline.cli.out import facts, span, table

    shown = {name.replace("_", " "): value for name, value in found.items() if name != "kinds"}
    if (soonest := found.get("eta_range_s")) and found["mode"] == "learning":
        shown["eta range s"] = " to ".join("nobody can say" if s is None else span(s) for s in soonest)
    else:
        shown.pop("eta range s", None)
    if "kinds_relearned_until" in found:
        again = [f"{kind} until {until[:16]}Z" for kind, until in found["kinds_relearned_until"].items()]
        shown["kinds relearned until"] = ", ".join(again) or "-"
    if "not_seen" in found:
        shown["not seen"] = ", ".join(found["not_seen"]) or "-"
    if "siblings" in found:
        lenders = [f"{name} ({values} values)" for name, values in found["siblings"].items()]
        shown["siblings"] = ", ".join(lenders) or "-"
    facts(shown.items())
    kinds = found.get("kinds") or {}
    rows = [
        (kind, f"{row['events']:,}", row["last_new"][:16], row["new_within_a_day"], f"{row['surprises_per_week']:.2f}")
        for kind, row in kinds.items()
    ]
    if rows:
        table(("kind", "events#", "last new", "new within a day#", "surprises a week#"), rows)


def learn(workload: Name, reason: Reason = None, json: Json = False) -> int:
    """Learn it (again): deviations are learned, not told. The danger list still is."""
    return decide("learn", workload, reason=reason, json=json)


def enforce(workload: Name, reason: Reason = None, json: Json = False) -> int:
    """End learning now: from here on deviations are told."""
    return decide("enforce", workload, reason=reason, json=json)


def decide(
    action: str, workload: str | None, *, value: str | None = None, reason: str | None, json: bool, **more: object
) -> int:
    """Tell the service what a person decided; it is kept over restarts. `more`: the other fields of a decision."""
    from pipeline.cli.out import emit
    from pipeline.sinks.text import visible

    asked = {name: given for name, given in more.items() if given is not None}
    asked.setdefault("author", login())
    with options.client() as client:
        answer = client.call("control", action=action, workload=workload, value=value, reason=reason, **asked)
    if json:
        emit(answer)
    else:
        undo = f"; undo: wonted baseline undo {answer['id']}" if action in UNDONE else ""
        say(visible(answer["text"] + undo))
    return OK


UNDONE = ("accept", "confirm", "forget", "lock", "snooze")


def login() -> str | None:
    """Who logged in, also behind sudo; None: the service takes the user of this process."""
    import os
    import pwd

    try:
        with open("/proc/self/loginuid") as file:
            uid = int(file.read())
        if uid not in (-1, 2**32 - 1):
            return pwd.getpwuid(uid).pw_name
    except (OSError, ValueError, KeyError):
        pass
    return os.environ.get("SUDO_USER") or None
