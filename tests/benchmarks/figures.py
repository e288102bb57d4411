"""The arithmetic of the benchmarks, and what becomes of it: values with their spread, tables, a page."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """
    >>> print(Spread.of([3.0, 1.0, 2.0]))
    2.00 (1.00..3.00)
    >>> print(Spread.of([204.4]).text(0, " ns"))
    204 ns
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        known = list(values)
        return cls(statistics.median(known), min(known), max(known), len(known))

    def text(self, digits: int = 2, unit: str = "", sign: str = "") -> str:
        """The median, and lowest to highest where there are several."""
        median = f"{self.median:{sign},.{digits}f}{unit}"
        return median if self.count < 2 else f"{median} ({self.low:{sign},.{digits}f}..{self.high:{sign},.{digits}f})"

    def __str__(self) -> str:
        return self.text()


def ratios(bare: Sequence[float], loaded: Sequence[float]) -> Spread:
    """loaded / bare, each pair within its round: what changes between rounds (another guest, another clock) cancels.

    >>> print(ratios([100.0, 200.0], [150.0, 300.0]))
    1.50 (1.50..1.50)
    """
    return Spread.of(after / before for before, after in zip(bare, loaded, strict=True))


def extra(bare: Sequence[float], loaded: Sequence[float]) -> Spread:
    """loaded - bare, each pair within its round."""
    return Spread.of(after - before for before, after in zip(bare, loaded, strict=True))


def multiple(bare: Sequence[float], floor: Sequence[float], loaded: Sequence[float]) -> Spread | None:
    """What `loaded` adds, in units of what `floor` adds: the medians' ratio, since a round where noise hid nearly all
    of the floor would give any number. Lowest and highest are of rounds. None where the floor is hidden altogether.

    >>> print(multiple([200.0, 200.0, 200.0], [300.0, 300.0, 201.0], [390.0, 390.0, 390.0]))
    1.90 (1.90..190.00)
    >>> multiple([200.0], [199.0], [390.0])
    """
    low, high = extra(bare, floor), extra(bare, loaded)
    if low.median <= 0:
        return None
    rounds = [
        (after - none) / (least - none) for none, least, after in zip(bare, floor, loaded, strict=True) if least > none
    ]
    return Spread(high.median / low.median, min(rounds), max(rounds), low.count)


@dataclass(frozen=True, slots=True)
class Table:
    """A head and rows of text; the first column says what the row is about."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def text(self) -> str:
        """
        >>> print(Table("Price", ("of", "ns"), (("read", "12"), ("open+close", "9")), "in ns").text())
        Price
          of          ns
          read        12
          open+close   9
          in ns
        """
        widths = [max(len(row[i]) for row in (self.head, *self.rows)) for i in range(len(self.head))]

        def line(row: Sequence[str]) -> str:
            first, *others = (
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            return "  " + "  ".join((first, *others)).rstrip()

        return "\n".join([self.title, *map(line, (self.head, *self.rows)), *([f"  {self.note}"] if self.note else [])])

    def markdown(self) -> str:
        """
        >>> print(Table("Price", ("of", "ns"), (("a|b", "12"),), "in ns").markdown())
        ### Price
        <BLANKLINE>
        | of | ns |
        |---|---:|
        | a\\|b | 12 |
        <BLANKLINE>
        in ns
        """

        def line(row: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"

        rule = "|---" + "|---:" * (len(self.head) - 1) + "|"
        lines = [f"### {self.title}", "", line(self.head), rule, *map(line, self.rows)]
        return "\n".join([*lines, "", self.note] if self.note else lines)
