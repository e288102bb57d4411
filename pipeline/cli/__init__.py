"""The command line: `wonted`. Words for people go to stderr, what was asked for to stdout; exit codes are stable."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import alerts, baseline, configs, evaluate, events, recordings, service, slack, workloads
from pipeline.cli.context import CONFIG, DEPENDENCY, FAILURE, INTERRUPTED, OK, Stop, options, say

app = typer.Typer(
    name="wonted",
    help="Learns what each workload normally does, from eBPF, and tells people when one does something that is not.",
    epilog="-c, -o and --data may also follow the command. Exit codes: 0 ok, 1 failure, 2 usage, 3 config, "
    "4 privilege or kernel, 5 dependency, 10 findings, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (service, workloads, alerts, baseline, events, configs, slack, recordings, evaluate):
    part.register(app)

TAKES_VALUE = ("-c", "--config", "-o", "--option", "--data")


@app.callback()
def globals_(
    config: Annotated[Path | None, typer.Option("-c", "--config", help="This config file only.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("-o", "--option", metavar="A.B=VALUE", help="One setting.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Data folder; /var/lib/wonted for root.")] = None,
) -> None:
    options.config, options.overrides, options.data = config, option or [], data


def main(args: Sequence[str]) -> int:
    """Run one command; its exit code."""
    try:
        code = app(args=_globals_first(args), prog_name="wonted", standalone_mode=False)
        return code if isinstance(code, int) else OK
    except Stop as stop:
        if stop.words:
            say(stop.words)
        return stop.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    """Words and exit code of an error that a person can act on; any other is a mistake of ours, with its traceback."""
    from pipeline.sinks.text import visible

    if isinstance(error, typer.TyperException):
        if words := error.format_message():
            say(f"wonted: {visible(words)}")
        say("See wonted --help, or --help after a command.")
        return error.exit_code
    from config.load import ConfigError
    from pipeline.client import ClientError, NotRunning

    if isinstance(error, ConfigError):
        say(str(error))
        return CONFIG
    if isinstance(error, ClientError):
        missing = isinstance(error, NotRunning)
        say(f"wonted: {visible(str(error))}{options.elsewhere() if missing else ''}")
        return DEPENDENCY if missing else FAILURE
    if isinstance(error, OSError) and error.filename is not None:
        say(f"wonted: {visible(str(error.filename))}: {error.strerror}")
        return FAILURE
    raise error


def _globals_first(args: Sequence[str]) -> list[str]:
    """-c, -o and --data before the command, wherever they were given."""
    ours: list[str] = []
    others: list[str] = []
    left = list(args)
    while left:
        word = left.pop(0)
        if word == "--":
            return [*ours, *others, word, *left]
        if word in TAKES_VALUE:
            if not left:
                return [word]  # what it lacks is told
            ours += [word, *left[:1]]
            left = left[1:]
        elif word.startswith(("--config=", "--option=", "--data=")) or (word[:2] in ("-c", "-o") and word[:3] != "--"):
            ours.append(word)
        else:
            others.append(word)
    return [*ours, *others]
