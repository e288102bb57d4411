"""Directories of labelled traces, one sequence of system call numbers per file: one pass, trained on normal only.

    DIR/train/**            normal; learned in the order of their names
    DIR/validation/**       normal; scored
    DIR/attack/CLASS/**     scored; the first folder names the class, files beside the folders are of class "attack"

Numbers are separated by blanks. Names that begin with a dot are left out. The format is that of the public sets of
Creech and Hu (A semantic approach to host-based intrusion detection, 2014) and of whoever followed them.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.evaluation.measures import Scores, auc, detection

Calls = npt.NDArray[np.int64]
RATES = (0.001, 0.01, 0.05, 0.15)
"""False positives at which detection is told."""
LARGEST = 1 << 32
"""A number beyond is no system call on any machine."""
_BLANK = b" \t\r\n\f\v"


class BadTraces(ValueError):
    """The directory is not what it should be; the message says where, what was expected and what was found."""


class Detector(Protocol):
    """What is evaluated: River's two calls."""

    def learn_one(self, x: dict[Any, Any]) -> Any: ...

    def score_one(self, x: dict[Any, Any]) -> float: ...


def read(path: Path) -> Calls:
    """The numbers of one file. Raises BadTraces with file and line."""
    data = path.read_bytes()
    if data.translate(None, b"0123456789" + _BLANK):
        raise _wrong(path, data)
    words = data.split()
    if not words:
        raise BadTraces(f"{path}: expected system call numbers separated by blanks, found nothing")
    if max(map(len, words)) > 10:
        raise _wrong(path, data)
    calls = np.array(words, dtype=np.int64)
    if int(calls.max()) >= LARGEST:
        raise _wrong(path, data)
    return calls


def _wrong(path: Path, data: bytes) -> BadTraces:
    for number, line in enumerate(data.split(b"\n"), 1):
        for word in line.split():
            if not word.isdigit() or len(word) > 10 or int(word) >= LARGEST:
                found = word[:40].decode("utf-8", "backslashreplace")
                return BadTraces(f"{path}:{number}: expected a system call number, found {found!r}")
    return BadTraces(f"{path}: expected system call numbers separated by blanks")


def files(folder: Path) -> list[Path]:
    """Every trace below a folder, in the order of their names. Raises BadTraces where there is none."""
    if not folder.is_dir():
        raise BadTraces(f"{folder}: no such folder; expected train/, validation/ and attack/<class>/")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise BadTraces(f"{folder}: expected at least one file of system call numbers, found none")
    return found


def class_of(folder: Path, path: Path) -> str:
    """
    >>> class_of(Path("a"), Path("a/Adduser_1/x.txt")), class_of(Path("a"), Path("a/x.txt"))
    ('Adduser_1', 'attack')
    """
    parts = path.relative_to(folder).parts
    return os.fsencode(parts[0]).decode("utf-8", "backslashreplace") if len(parts) > 1 else "attack"


class _Clock:
    """CPU seconds that learning and scoring took, and of how many calls; reading files is not in them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0

    def timed(self, paths: list[Path], each: Callable[[dict[Any, Any]], Any]) -> Iterator[Any]:
        for path in paths:
            x = {"calls": read(path)}
            start = time.process_time()
            answer = each(x)
            self.seconds += time.process_time() - start
            self.calls += len(x["calls"])
            yield answer


def evaluate(directory: Path, detector: Detector) -> dict[str, Any]:
    """Train, then score: AUC, detection at RATES of false positives, of all attacks and per class; CPU microseconds
    of learning and scoring per system call. Nothing is learned from validation or attack. Raises BadTraces."""
    train, validation = files(directory / "train"), files(directory / "validation")
    attack = files(directory / "attack")
    clock = _Clock()
    for _ in clock.timed(train, detector.learn_one):
        pass
    normal = np.fromiter(clock.timed(validation, detector.score_one), dtype=np.float64)
    attacks = np.fromiter(clock.timed(attack, detector.score_one), dtype=np.float64)
    classes = np.array([class_of(directory / "attack", path) for path in attack])
    return {
        **_figures(normal, attacks),
        "us_per_call": round(1e6 * clock.seconds / clock.calls, 3),
        "train": len(train),
        "normal": len(normal),
        "attacks": len(attacks),
        "calls": clock.calls,
        "classes": {
            str(name): {**_figures(normal, attacks[classes == name]), "traces": int((classes == name).sum())}
            for name in sorted(set(classes.tolist()))
        },
    }


def _figures(normal: Scores, attack: Scores) -> dict[str, Any]:
    return {
        "auc": round(auc(normal, attack), 4),
        "detection": {str(rate): round(detection(normal, attack, rate), 4) for rate in RATES},
    }
