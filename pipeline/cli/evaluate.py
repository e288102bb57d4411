"""evaluate traces: how good the models are, on what people bring."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.context import FAILURE, OK, Stop, say
from pipeline.cli.service import Json


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="How good the models are, measured.", no_args_is_help=True)
    group.command()(traces)
    app.add_typer(group, name="evaluate")


def traces(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder with train/, validation/ and attack/CLASS/.", show_default=False),
    ],
    json: Json = False,
) -> int:
    """The sequence model on labelled traces: one file each, numbers of system calls separated by blanks. Learns from
    train/ only, in the order of the names, then scores the others."""
    import msgspec

    from models.evaluation.traces import BadTraces, evaluate
    from models.sequences import Sequences
    from pipeline.cli.out import emit

    model = Sequences()
    try:
        result = evaluate(directory, model)
    except BadTraces as error:
        raise Stop(FAILURE, f"wonted: {_visible(str(error))}") from None
    result["state_bytes"] = len(msgspec.msgpack.encode(model.dump()))
    if json:
        emit(result)
    else:
        outline(result)
    say(
        f"{result['train']:,} traces learned, {result['normal']:,} normal and {result['attacks']:,} attacks scored; "
        f"{result['calls']:,} calls at {result['us_per_call']:.2f} us, {result['state_bytes']:,} bytes of state"
    )
    return OK


def _visible(words: str) -> str:
    from pipeline.sinks.text import visible

    return visible(words)


def outline(result: dict[str, Any]) -> None:
    """A line per class of attack, and one of all."""
    from pipeline.cli.out import table

    rates = list(result["detection"])
    classes = [*result["classes"].items(), ("all", {**result, "traces": result["attacks"]})]
    table(
        ("attack", "traces#", "auc#", *(f"at {100 * float(rate):g} %#" for rate in rates)),
        [
            (name, f"{found['traces']:,}", f"{found['auc']:.3f}", *(f"{found['detection'][r]:.0%}" for r in rates))
            for name, found in classes
        ],
    )
