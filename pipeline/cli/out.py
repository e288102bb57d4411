"""Tables for people, JSON lines for programs. Nothing that a workload wrote reaches a terminal as it is."""

import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.alert import to_line
from pipeline.cli.context import OK, Stop
from pipeline.sinks.text import visible


def emit(value: Mapping[str, Any]) -> None:
    """One line of JSON, at once: somebody may be reading the pipe."""
    write(to_line(dict(value)).decode())


def line(text: str) -> None:
    """One line of text."""
    write(visible(text) + "\n")


def write(text: str) -> None:
    """To stdout, at once. A reader that has seen enough (`| head`) is no error: the command just ends."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
        raise Stop(OK) from None


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns named in small letters; one ending in # is a number. As wide as the terminal, or the text in a pipe."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.endswith("#")
        shown.add_column(column.rstrip("#"), justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        shown.add_row(*(cell if isinstance(cell, Text) else Text(visible(text(cell))) for cell in row))
    _print(shown)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Name and value, one under the other."""
    from rich.table import Table
    from rich.text import Text

    shown = Table.grid(padding=(0, 2))
    for name, value in pairs:
        shown.add_row(Text(name, style="bold"), Text(visible(text(value)), overflow="fold"))
    _print(shown)


def _print(shown: object) -> None:
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False).print(shown)
        return
    piped = Console(width=240, highlight=False, file=io.StringIO())
    piped.print(shown)
    lines = piped.file.getvalue().splitlines()  # type: ignore[attr-defined]
    write("".join(line.rstrip() + "\n" for line in lines))


def text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text(item)}" for name, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item) for item in value) or "none"
    return str(value)


def span(seconds: float | None) -> str:
    """
    >>> span(104_400), span(95), span(0.2), span(None)
    ('1 d 5 h', '1 min 35 s', '0 s', '-')
    """
    from models.learning import duration

    return "-" if seconds is None else duration(seconds)


def size(count: float | None) -> str:
    """
    >>> size(512), size(3 << 20)
    ('512 B', '3.0 MiB')
    """
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")
