"""The processes that are known, as how often each called what; and how far the nearest of them is."""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
CALLS = 512
STEP = 16.0
"""Resolution of log(1 + n). Coarser steps make an attack the same as a known process."""


_LEVELS = np.minimum(np.rint(np.log1p(np.arange(1 << 16)) * STEP), 255).astype(np.uint8)


def profile(calls: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """log(1 + n) of each of 512 system calls, in sixteenths; above 65,535 all are the same.

    >>> profile(np.array([0, 0, 3]))[:4].tolist()
    [18, 0, 0, 11]
    """
    counts = np.bincount(calls, minlength=CALLS)
    if len(calls) >= 1 << 16:
        counts = np.minimum(counts, (1 << 16) - 1)
    return _LEVELS[counts]


class Nearest:
    """Distance of a process to the nearest known one, by how often it made which calls and by which it made at all.

        often(v) = 1 - max over known r of cos(v, r), calls that all known ones make counting half
        which(v) = 1 - max over known r of |v and r| / sqrt(|v| |r|)

    Kept is every profile that differs. Where there is no more room, the one goes that was nearest to another when it
    came: what it stands for is then that far off, no further.

    Parameters: `room`: bytes that the profiles may take on the wire, where they are deflated (to a third, as a rule).
    `most`: profiles; each is compared with each process, so time grows with them: 0.1 us per call at 300.

    >>> known = Nearest()
    >>> known.learn(profile(np.array([0, 1, 1, 3])))
    >>> known.distances(profile(np.array([0, 1, 1, 3]))), min(known.distances(profile(np.array([9, 9])))) > 0.99
    ((0.0, 0.0), True)

    Reference: Xie, Hu and Slay, Evaluating host-based anomaly detection systems: the frequency-based algorithms, 2014.
    """

    def __init__(self, room: int = 22_000, most: int = 640) -> None:
        self.room = room
        self.most = most
        self.rows: list[bytes] = []
        """Profiles, as (call's distance from the one before, level) pairs."""
        self.apart: list[float] = []
        """How far each was from its nearest when it came."""
        self.size = 0
        """Bytes before they are deflated."""
        self.wire = 0
        """Bytes that they can take on the wire at most: as when last deflated, and all that came since."""
        self.forgotten = 0
        self._known: set[bytes] = set()
        self._row_of = np.full(CALLS, -1, dtype=np.int64)
        self._calls = 0
        self._weighed = 0
        self._weights: Floats = np.ones(CALLS, dtype=np.float32)
        """By row. What no known process called when they were weighed counts full."""
        self._levels: Floats = np.zeros((0, 0), dtype=np.float32)
        """A row per call, a column per known process: a process that comes uses few calls."""
        self._often: Floats = self._levels
        self._which: Floats = self._levels

    def __len__(self) -> int:
        return len(self.rows)

    def distances(self, levels: npt.NDArray[np.uint8]) -> tuple[float, float]:
        """(often, which), each 0 (known exactly) to 1."""
        if not self.rows:
            return 1.0, 1.0
        used = np.flatnonzero(levels)
        columns = self._row_of[used]
        inside = columns >= 0
        values, columns = levels[used].astype(np.float32), columns[inside]
        known = values[inside] * self._weights[columns]
        length = float((values[inside] * known).sum() + (values[~inside] ** 2).sum())
        often = 1.0 - float((known @ self._often[columns]).max()) / (length**0.5 or 1.0)
        which = 1.0 - float(self._which[columns].sum(axis=0).max()) / (len(used) ** 0.5 or 1.0)
        return min(1.0, max(0.0, round(often, 6))), min(1.0, max(0.0, round(which, 6)))

    def learn(self, levels: npt.NDArray[np.uint8], apart: float | None = None) -> None:
        """`apart`: the distance, where it was just asked for."""
        row = _encode(levels)
        if row in self._known:
            return
        if apart is None:
            apart = self.distances(levels)[0]
        need = len(row) + 3
        fits = self._fits(need)
        if (not fits or len(self.rows) >= self.most) and not self._make_room(1 if fits else need, apart):
            self.forgotten += 1
            return
        self._append(row, levels, round(apart * 255) / 255)
        if len(self.rows) > self._weighed * 17 // 16:
            self._weigh()

    def _fits(self, need: int) -> bool:
        if self.wire + need > self.room:
            self.wire = len(zlib.compress(b"".join(self.rows))) + 3 * len(self.rows)
        return self.wire + need <= self.room * 0.9  # so that it is not deflated again for each that comes

    def _make_room(self, need: int, apart: float) -> bool:
        """Of the profiles that are nearest to another, as many go as are needed; none where the newcomer is nearer."""
        freed, gone = 0, []
        for at in sorted(range(len(self.rows)), key=lambda i: (self.apart[i], i)):
            if freed >= need:
                break
            if self.apart[at] >= apart:
                return False
            freed += len(self.rows[at]) + 3
            gone.append(at)
        if freed < need:
            return False
        for at in sorted(gone, reverse=True):
            self._remove(at)
        self.forgotten += len(gone)
        return True

    def _remove(self, at: int) -> None:
        """The last one takes its place."""
        self.size -= len(self.rows[at]) + 3
        self._known.discard(self.rows[at])
        last = len(self.rows) - 1
        for rows in (self._levels, self._often, self._which):
            rows[:, at] = rows[:, last]
            rows[:, last] = 0.0
        self.rows[at], self.apart[at] = self.rows[last], self.apart[last]
        del self.rows[last], self.apart[last]

    def _append(self, row: bytes, levels: npt.NDArray[np.uint8], apart: float) -> None:
        used = np.flatnonzero(levels)
        for call in used[self._row_of[used] < 0]:
            self._row_of[call] = self._calls
            self._calls += 1
        at, tall = len(self.rows), -(-self._calls // 32) * 32
        if tall > self._levels.shape[0] or at >= self._levels.shape[1]:
            shape = (tall, max(64, at + at // 4 + 1))
            self._levels, self._often, self._which = (
                _larger(rows, shape) for rows in (self._levels, self._often, self._which)
            )
        columns, values = self._row_of[used], levels[used].astype(np.float32)
        self._levels[columns, at] = values
        self._often[columns, at] = values / np.sqrt((values * values * self._weights[columns]).sum())
        self._which[columns, at] = 1.0 / np.sqrt(len(used))
        self.rows.append(row)
        self.apart.append(apart)
        self.size += len(row) + 3
        self.wire += len(row) + 3
        self._known.add(row)

    def _weigh(self) -> None:
        """A call that every known process makes counts half: it tells them apart least."""
        many = self._weighed = len(self.rows)
        rows = self._levels[:, :many]
        share = np.rint((rows > 0).mean(axis=1) * 255) / 255
        self._weights[: len(share)] = 1.0 - 0.5 * share
        self._often[:, :many] = rows / np.sqrt(self._weights[: len(share)] @ (rows * rows))

    def dump(self) -> list[Any]:
        packed = zlib.compress(b"".join(len(row).to_bytes(2, "little") + row for row in self.rows), 9)
        apart = np.rint(np.array(self.apart) * 255).astype(np.uint8).tobytes()
        columns = np.argsort(self._row_of)[CALLS - self._calls :]  # of each, its call
        shares = np.rint((1.0 - self._weights[: self._calls]) * 2 * 255).astype(np.uint8)
        return [packed, apart, self._weighed, columns.astype("<u2").tobytes(), shares.tobytes(), self.forgotten]

    @classmethod
    def loaded(cls, state: list[Any], room: int, most: int) -> "Nearest":
        packed, apart, weighed, columns, shares, forgotten = state
        self, data, at = cls(room, most), zlib.decompress(packed), 0
        calls = np.frombuffer(columns, dtype="<u2")
        self._row_of[calls] = np.arange(len(calls))
        self._calls = len(calls)
        self._weights[: len(calls)] = 1.0 - 0.5 * (np.frombuffer(shares, dtype=np.uint8) / 255)
        for share in apart:
            length = int.from_bytes(data[at : at + 2], "little")
            row = data[at + 2 : at + 2 + length]
            at += 2 + length
            self._append(row, _decode(row), share / 255)
        self._weighed, self.forgotten = weighed, forgotten
        return self


def _larger(rows: Floats, shape: tuple[int, int]) -> Floats:
    grown = np.zeros(shape, dtype=np.float32)
    grown[: rows.shape[0], : rows.shape[1]] = rows
    return grown


def _encode(levels: npt.NDArray[np.uint8]) -> bytes:
    out = bytearray()
    last = -1
    for call in np.flatnonzero(levels).tolist():
        gap = call - last
        while gap > 255:
            out += b"\xff\x00"  # level 0: nothing here, go on
            gap -= 255
        out += bytes((gap, int(levels[call])))
        last = call
    return bytes(out)


def _decode(row: bytes) -> npt.NDArray[np.uint8]:
    levels = np.zeros(CALLS, dtype=np.uint8)
    call = -1
    for at in range(0, len(row), 2):
        call += row[at]
        if row[at + 1]:
            levels[call] = row[at + 1]
    return levels
