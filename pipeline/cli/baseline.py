"""baseline show, accept, forget."""

from typing import Annotated, Any

import typer

from pipeline.cli.context import OK, options
from pipeline.cli.service import Json
from pipeline.cli.workloads import Name, Reason, decide


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="What a workload normally does, and what people decided about it.", no_args_is_help=True)
    group.command()(show)
    group.command()(accept)
    group.command()(forget)
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


def outline(value: Any, depth: int = 0) -> None:
    """Nested facts, indented."""
    from pipeline.cli.out import line, text

    pad = "  " * depth
    pairs = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for name, item in pairs:
        label = f"{pad}{name}: " if name is not None else f"{pad}- "
        if isinstance(item, (dict, list)) and item and not (isinstance(item, list) and _flat(item)):
            line(label.rstrip())
            outline(item, depth + 1)
        else:
            line(label + text(item))


def _flat(items: list[Any]) -> bool:
    return all(not isinstance(item, (dict, list)) for item in items) and sum(len(str(item)) for item in items) < 90


def accept(
    alert: Annotated[
        str, typer.Argument(metavar="ID", help="An alert's id (al_..., or its beginning), or a workload.")
    ],
    value: Annotated[
        str | None, typer.Argument(help="With a workload: the value, as `baseline show` prints it.")
    ] = None,
    reason: Reason = None,
    json: Json = False,
) -> int:
    """This is normal: learn the alert's value; the next one is silent."""
    if value is None:
        return decide("accept", None, value=alert, reason=reason, json=json)
    return decide("accept", alert, value=value, reason=reason, json=json)


def forget(
    workload: Name,
    value: Annotated[str, typer.Argument(help="As `baseline show` prints it.")],
    reason: Reason = None,
    json: Json = False,
) -> int:
    """Take a value out of the baseline: the next one is told."""
    return decide("forget", workload, value=value, reason=reason, json=json)
