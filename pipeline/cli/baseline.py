"""baseline show, accept, forget, diff; the other decisions are in decisions.py."""

from typing import Annotated, Any

import typer

from pipeline.cli import decisions
from pipeline.cli.context import OK, options, say
from pipeline.cli.service import Json
from pipeline.cli.workloads import Name, Reason, decide


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="What a workload normally does, and what people decided about it.", no_args_is_help=True)
    group.command()(show)
    group.command()(accept)
    group.command()(forget)
    group.command()(diff)
    decisions.commands(group)
    app.add_typer(group, name="baseline")


def show(workload: Name, json: Json = False) -> int:
    """What is known of a workload, what was not seen yet, and what was decided."""
    from pipeline.cli.out import emit

    with options.client() as client:
        found = client.call("baseline", workload=workload)
    if json:
        emit(found)
    else:
        outline(found)
    return OK


def outline(found: dict[str, Any]) -> None:
    """The summary, then what is known by kind, then what people and Wonted itself keep out of it."""
    from pipeline.cli.out import facts, line, table

    lists = ("known", "decisions", "quarantine", "review", "kinds", "drift")
    facts([(name.replace("_", " "), value) for name, value in found.items() if name not in lists])
    for kind, rows in found["known"].items():
        line(f"{kind}: {len(rows)} known")
        table(("count#", "last", "value"), [(row["count"], row["last"][:16], row["value"]) for row in rows])
    if found["quarantine"]:
        line("told, and therefore not learned:")
        rows = [(row["count"], row["last"][:16], row["value"]) for row in found["quarantine"]]
        table(("count#", "last", "value"), rows)
    if found.get("review"):
        line("seen while learning, once or by one replica: please look; told if it comes again and is rare here:")
        rows = [(row["count"], row["last"][:16], row["value"]) for row in found["review"]]
        table(("count#", "last", "value"), rows)
    if found.get("drift"):
        line("kinds that were learned again, as they changed:")
        rows = [(row["kind"], row["opened"][:16], row["until"][:16], row["learned"]) for row in found["drift"]]
        table(("kind", "from", "until", "values#"), rows)
    if found["decisions"]:
        line("decided by people:")
        decisions.listing(found["decisions"])


def accept(
    alert: Annotated[
        str, typer.Argument(metavar="ID", help="An alert's id (al_..., or its beginning), or a workload.")
    ],
    value: Annotated[
        str | None, typer.Argument(help="With a workload: the value, as `baseline show` prints it.")
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            help="How wide: value (this alone), place (one step wider), anyone (by any program), image (this value, in "
            "all workloads of the image)."
        ),
    ] = None,
    workloads: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="In all workloads that match, also those that appear later: 'shop/*'."),
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(metavar="GLOB", help="All values of the workload that match this shell pattern.")
    ] = None,
    span: decisions.For = None,
    reason: Reason = None,
    author: decisions.Author = None,
    json: Json = False,
) -> int:
    """This is normal: the next one is silent. For good and as it is, it is learned; else silent as long as said."""
    wide = {
        "scope": scope,
        "pattern": pattern,
        "workloads": workloads,
        "for_s": decisions.length(span),
        "author": author,
    }
    if pattern is not None and not alert.startswith("al_"):
        return decide("accept", alert, value=pattern, reason=reason, json=json, **wide)
    if value is None:
        return decide("accept", None, value=alert, reason=reason, json=json, **wide)
    return decide("accept", alert, value=value, reason=reason, json=json, **wide)


def forget(
    workload: Name,
    value: Annotated[str, typer.Argument(help="As `baseline show` prints it.")],
    reason: Reason = None,
    author: decisions.Author = None,
    json: Json = False,
) -> int:
    """Take a value out of the baseline: the next one is told."""
    return decide("forget", workload, value=value, reason=reason, json=json, author=author)


def diff(
    workload: Name,
    other: Annotated[str | None, typer.Argument(metavar="[B]", help="Another; without it: the latest image.")] = None,
    json: Json = False,
) -> int:
    """What one baseline knows and the other does not; of one alone, what its latest image added."""
    from pipeline.cli.out import emit, line, table

    with options.client() as client:
        found = client.call("diff", workload=workload, other=other)
    rows = found["rows"]
    if json:
        for row in rows:
            emit(row)
        return OK
    for kind in dict.fromkeys(row["kind"] for row in rows):
        some = [row for row in rows if row["kind"] == kind]
        line(f"{kind}: {len(some)}")
        if found["b"] is None:
            table(("count#", "state", "value"), [(row["count"], row["state"], row["value"]) for row in some])
        else:
            cells = [(row["count"], row["only_in"], row["last"][:16], row["value"]) for row in some]
            table(("count#", "only in", "last", "value"), cells)
    if not rows:
        say("no difference" if found["b"] is not None else "its latest image added nothing")
    return OK
