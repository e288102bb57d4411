"""The processes that are known, as how often each called what; and how far the nearest of them is."""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
CALLS = 512
STEP = 16.0
"""Resolution of log(1 + n): a byte holds 8 million calls. Coarser steps make an attack the same as a known process."""


def profile(calls: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """log(1 + n) of each of 512 system calls, in sixteenths.

    >>> profile(np.array([0, 0, 3]))[:4].tolist()
    [18, 0, 0, 11]
    """
    counts = np.bincount(calls, minlength=CALLS)
    levels: npt.NDArray[np.uint8] = np.minimum(np.rint(np.log1p(counts) * STEP), 255).astype(np.uint8)
    return levels


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
        self._column = np.full(CALLS, -1, dtype=np.int64)
        self._columns = 0
        self._levels: Floats = np.zeros((0, 0), dtype=np.float32)
        self._often: Floats = self._levels
        self._which: Floats = self._levels
        self._weights: Floats = np.zeros(0, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def distances(self, levels: npt.NDArray[np.uint8]) -> tuple[float, float]:
        """(often, which), each 0 (known exactly) to 1."""
        if not self.rows:
            return 1.0, 1.0
        used = np.flatnonzero(levels)
        columns = self._column[used]
        inside = columns >= 0
        values = levels[used].astype(np.float32)
        known, columns = values[inside], columns[inside]
        v = np.zeros(self._columns, dtype=np.float32)
        v[columns] = known * self._weights[columns]
        length = float((known * v[columns]).sum() + (values[~inside] ** 2).sum())
        often = 1.0 - float((self._often @ v).max()) / (length**0.5 or 1.0)
        v[columns] = 1.0
        which = 1.0 - float((self._which @ v).max()) / (len(used) ** 0.5 or 1.0)
        return min(1.0, max(0.0, round(often, 6))), min(1.0, max(0.0, round(which, 6)))

    def learn(self, levels: npt.NDArray[np.uint8], apart: float | None = None) -> None:
        """`apart`: the distance, where it was just asked for."""
        row = _encode(levels)
        if row in self._known:
            return
        if apart is None:
            apart = self.distances(levels)[0]
        need = len(row) + 3
        if (len(self.rows) >= self.most or not self._fits(need)) and not self._make_room(need, apart):
            self.forgotten += 1
            return
        self._append(row, levels, round(apart * 255) / 255)
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
            self._known.discard(self.rows[at])
            del self.rows[at], self.apart[at]
        self.size -= freed
        self.forgotten += len(gone)
        self._levels = np.delete(self._levels, gone, axis=0)
        return True

    def _append(self, row: bytes, levels: npt.NDArray[np.uint8], apart: float) -> None:
        for call in np.flatnonzero(levels):
            if self._column[call] < 0:
                self._column[call] = self._columns
                self._columns += 1
        at, wide = len(self.rows), -(-self._columns // 32) * 32
        if at >= self._levels.shape[0] or wide > self._levels.shape[1]:
            grown = np.zeros((max(64, at + at // 4 + 1), wide), dtype=np.float32)
            grown[:at, : self._levels.shape[1]] = self._levels[:at]
            self._levels = grown
        used = np.flatnonzero(levels)
        self._levels[at] = 0.0
        self._levels[at, self._column[used]] = levels[used]
        self.rows.append(row)
        self.apart.append(apart)
        self.size += len(row) + 3
        self.wire += len(row) + 3
        self._known.add(row)

    def _weigh(self) -> None:
        """A call that every known process makes counts half: it tells them apart least."""
        rows = self._levels[: len(self.rows), : self._columns]
        used = rows > 0
        self._weights = (1.0 - 0.5 * used.mean(axis=0)).astype(np.float32)
        lengths = np.sqrt((rows * rows) @ self._weights)
        self._often = (rows / np.maximum(lengths, 1e-9)[:, None]).astype(np.float32)
        self._which = used / np.sqrt(np.maximum(used.sum(axis=1), 1))[:, None].astype(np.float32)

    def dump(self) -> list[Any]:
        packed = zlib.compress(b"".join(len(row).to_bytes(2, "little") + row for row in self.rows), 9)
        apart = np.rint(np.array(self.apart) * 255).astype(np.uint8).tobytes()
        return [packed, apart, self.forgotten]

    @classmethod
    def loaded(cls, state: list[Any], room: int, most: int) -> "Nearest":
        packed, apart, forgotten = state
        self, data, at = cls(room, most), zlib.decompress(packed), 0
        for share in apart:
            length = int.from_bytes(data[at : at + 2], "little")
            row = data[at + 2 : at + 2 + length]
            at += 2 + length
            self._append(row, _decode(row), share / 255)
        self.forgotten = forgotten
        if self.rows:
            self._weigh()
        return self


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
