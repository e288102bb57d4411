"""Sequences of system calls: which come after which, how often, and which at all."""

from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from river import base

from models.conformal import Conformal
from models.nearest import Nearest, profile

GRAM = 6
BITS = 1 << 16
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT, _PAIR, _QUAD, _TOP = (np.uint64(n) for n in (9, 18, 36, 48))


def numbers(calls: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """System call numbers below 512, as the kernel counts them; larger ones are spread over the same range."""
    x: npt.NDArray[np.int64] = np.asarray(calls, dtype=np.int64)
    if len(x) and int(x.max()) >= 512:
        x = np.where(x < 512, x, (x * 40_503 >> 4) & 511)
    return x


def grams(x: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
    """Where the six-gram that ends at each call falls in the bitmap: the hash of bpf/state.bpf.c, which begins each
    thread with six zeros."""
    padded = np.zeros(len(x) + GRAM - 1, dtype=np.uint64)
    padded[GRAM - 1 :] = x
    pairs = padded[:-1] << _SHIFT | padded[1:]
    six = pairs[:-4] << _QUAD | pairs[2:-2] << _PAIR | pairs[4:]
    found: npt.NDArray[np.uint16] = ((six * _MULTIPLIER) >> _TOP).astype(np.uint16)
    return found


class Sequences(base.AnomalyDetector):
    """How far a sequence of system calls is from all that is known, 0 to 1. Expects {"calls": numbers, in order}.

        score = max over windows of (sqrt(new) + sqrt(often) + sqrt(which)) / 3

    new: share of its six-grams that are not in the bitmap (8 KiB, one hash). often, which: distance to the nearest
    known process by how often it made each call, and by which calls it made (models/nearest.py). Each sees what the
    others do not: six-grams an unusual order of usual calls, the distances an unusual mixture of usual sequences. The
    root lets the first small difference from what is known count most. A long sequence is taken in windows, so that
    little in much is not lost.

    `p_one` turns it into the share of normal sequences that score as high (models/conformal.py), from the scores that
    what was learned had just before it was.

    Parameters: `room`: bytes for known processes; with 8 KiB of bitmap and 1.5 KB of scores, 32 KB on the wire in all.
    `most`: known processes kept. `window`: calls; between 500 and 2,000 made no difference on recorded hosts.

    >>> model = Sequences()
    >>> for _ in range(3): model.learn_one({"calls": [2, 0, 0, 3, 1, 231] * 20})
    >>> model.score_one({"calls": [2, 0, 0, 3, 1, 231] * 20}), model.score_one({"calls": [41, 42, 33, 33, 59]}) > 0.9
    (0.0, True)

    References: Forrest, Hofmeyr, Somayaji and Longstaff, A sense of self for Unix processes, 1996 (sequences);
    Xie, Hu and Slay, 2014 (nearest known frequencies).
    """

    def __init__(self, room: int = 22_000, most: int = 640, window: int = 1000) -> None:
        self.room = room
        self.most = most
        self.window = window
        self.seen = 0
        self.bitmap = np.zeros(BITS, dtype=np.bool_)
        self.known = Nearest(room, most)
        self.usual = Conformal()

    def learn_one(self, x: dict[Hashable, Any]) -> None:
        calls = numbers(x["calls"])
        if not len(calls):
            return
        worst = 0.0
        for found, levels in self._windows(calls):
            score, often = self._score(found, levels)
            worst = max(worst, score)
            self.bitmap[found] = True
            self.known.learn(levels, often)
        if self.seen:
            self.usual.learn(worst)
        self.seen += 1

    def score_one(self, x: dict[Hashable, Any]) -> float:
        return max((self._score(*window)[0] for window in self._windows(numbers(x["calls"]))), default=0.0)

    def _windows(self, calls: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]]:
        """Six-grams and profile of each; a rest of less than a quarter belongs to the window before."""
        found, size = grams(calls), len(calls)
        starts = range(0, max(1, size - self.window // 4), self.window) if size else range(0)
        for start in starts:
            end = size if start == starts[-1] else start + self.window
            yield found[start:end], profile(calls[start:end])

    def p_one(self, x: dict[Hashable, Any]) -> float:
        """Share of normal sequences that are at least this unusual."""
        return self.usual.p(self.score_one(x))

    def _score(self, found: npt.NDArray[np.uint16], levels: npt.NDArray[np.uint8]) -> tuple[float, float]:
        new = 1.0 - float(np.count_nonzero(self.bitmap[found])) / len(found)
        often, which = self.known.distances(levels)
        return float(new**0.5 + often**0.5 + which**0.5) / 3.0, often

    def dump(self) -> list[Any]:
        return [self.seen, np.packbits(self.bitmap).tobytes(), self.known.dump(), self.usual.dump()]

    def load(self, state: list[Any]) -> None:
        self.seen = state[0]
        self.bitmap = np.unpackbits(np.frombuffer(state[1], dtype=np.uint8)).astype(np.bool_)
        self.known = Nearest.loaded(state[2], self.room, self.most)
        self.usual.load(state[3])
