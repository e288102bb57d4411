"""evaluate simulate, traces: how good the models are, on fleets that are made and on what people bring."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.context import FAILURE, OK, Stop, say
from pipeline.cli.service import Json


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="How good the models are, measured.", no_args_is_help=True)
    group.command()(simulate)
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


def simulate(
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind of workload; may be repeated.")] = None,
    budget: Annotated[list[float] | None, typer.Option(help="False alerts per week; may be repeated.")] = None,
    workloads: Annotated[int, typer.Option(min=1, help="Per kind.")] = 10,
    seed: Annotated[int, typer.Option(help="The same seed gives the same figures.")] = 1,
    siblings: Annotated[int, typer.Option(min=0, max=15, help="Workloads of the same image that lend.")] = 0,
    danger_weights: Annotated[bool, typer.Option(help="Dangerous places and tools weigh more.")] = True,
    poisoned: Annotated[bool, typer.Option("--poisoned", help="The intruder did the same while it learned.")] = False,
    replicas: Annotated[int, typer.Option(min=0, max=60, help="Per workload; 0: as its kind has them.")] = 0,
    learn: Annotated[int, typer.Option(min=2, help="Days of learning.")] = 14,
    enforce: Annotated[int, typer.Option(min=1, help="Days of enforcing.")] = 28,
    json: Json = False,
) -> int:
    """Fleets of simulated workloads: are false alerts within the budget, and is one act of an intruder told? Needs no
    privileges and no service. About a second of processor time per workload and budget."""
    from models.evaluation.fleet import KINDS
    from models.evaluation.simulate import Setting, fleet
    from pipeline.cli.out import emit, table

    names = {life.kind: life for life in KINDS}
    unknown = [name for name in kind or () if name not in names]
    if unknown:
        raise Stop(FAILURE, f"wonted: no such kind: {', '.join(unknown)}; known: {', '.join(names)}")
    wanted = [Setting(b, siblings, danger_weights, poisoned) for b in budget or (0.1, 0.3, 1.0, 3.0)]
    rows: list[dict[str, Any]] = []
    for row in fleet([names[name] for name in kind or names], wanted, workloads, seed, learn, enforce, replicas):
        rows.append(row._asdict())
        if json:
            emit(rows[-1])
        else:
            say(f"{row.kind} at {row.budget:g} a week: done")
    if not json:
        columns = (
            "kind",
            "budget#",
            "false per week#",
            "incidents#",
            "told#",
            "enforcing#",
            "bytes#",
            "seen-set#",
            "patterns#",
        )
        table(
            columns,
            [
                (
                    r["kind"], f"{r['budget']:g}", f"{r['false_per_week']:.2f}", f"{r['incidents_per_week']:.2f}",
                    f"{r['detected']}/{r['attacks']}", f"{r['enforcing']}/{r['workloads']}",
                    f"{r['bytes_per_workload']:,}", f"{r['exact_per_week']:,.1f}", f"{r['patterns_per_week']:,.1f}",
                )
                for r in rows
            ],
        )  # fmt: skip
    return OK
