"""Which system calls each program of a workload makes, as the kernel tells at a process's end and each minute."""

import zlib
from collections.abc import Hashable, Iterator
from math import log2
from typing import Any, NamedTuple

from river import base

from models import programs
from probes.names import NUMBERS, name

BYTES = 64
GRAVE = {
    "ptrace": 0.1, "process_vm_readv": 0.1, "process_vm_writev": 0.1, "pidfd_getfd": 0.1, "bpf": 0.05,
    "init_module": 0.02, "finit_module": 0.02, "delete_module": 0.05, "kexec_load": 0.02, "kexec_file_load": 0.02,
    "mount": 0.1, "move_mount": 0.1, "fsmount": 0.1, "umount2": 0.3, "pivot_root": 0.1, "chroot": 0.3, "setns": 0.1,
    "unshare": 0.2, "userfaultfd": 0.2, "perf_event_open": 0.2, "keyctl": 0.3, "add_key": 0.4, "request_key": 0.4,
    "iopl": 0.05, "ioperm": 0.05, "acct": 0.1, "swapon": 0.1, "reboot": 0.05, "settimeofday": 0.2,
    "clock_settime": 0.2, "sethostname": 0.2, "modify_ldt": 0.2, "open_by_handle_at": 0.1, "quotactl": 0.3,
    "fanotify_init": 0.3, "kcmp": 0.3, "process_madvise": 0.3, "syslog": 0.4,
}  # fmt: skip
"""Calls that few programs make, and attacks like to: the odds of a benign first time (as in models/kinds/privilege)."""
PLAIN = 30.0
"""Odds of a call that a program was never seen to make; of several, each that no program here makes takes 0.7 of it."""
RATHER_NOT = 0.7
SEEN_ELSEWHERE = 0.95
YOUNG, TOO_YOUNG = 5, 1000.0
"""Of a program that was looked at less often, plain calls say nothing: more is still to come."""
SCRIPTS = 4.0
"""What a shell or an interpreter calls is up to what it runs."""
_GRAVE_BITS = sum(1 << NUMBERS[call] for call in GRAVE)


def bits(used: int) -> Iterator[int]:
    """
    >>> list(bits(0b1010))
    [1, 3]
    """
    while used:
        low = used & -used
        yield low.bit_length() - 1
        used ^= low


def apart(one: int, other: int) -> float:
    """1 - cosine of two sets.

    >>> apart(0b11, 0b11), round(apart(0b11, 0b110), 2), apart(0b1, 0b10)
    (0.0, 0.5, 1.0)
    """
    size: int = one.bit_count() * other.bit_count()
    return 1.0 - (one & other).bit_count() / float(size) ** 0.5 if size else 1.0


class Known:
    """What is known of one program."""

    __slots__ = ("last", "processes", "sets", "union")

    def __init__(self) -> None:
        self.union = 0
        self.sets: list[int] = []
        """Of single processes; those that are furthest from one another."""
        self.processes = 0
        self.last = 0


class Departure(NamedTuple):
    """What a process did beyond its program's sets."""

    new: int
    """Calls its program never made."""
    foreign: int
    """Of these, calls that no program of the workload made."""
    nearest: str
    """The program whose known process is nearest."""
    distance: float
    """1 - cosine to that process."""
    processes: int
    """Of the program, so far."""

    @property
    def names(self) -> list[str]:
        """The gravest first."""
        return sorted(map(name, bits(self.new)), key=lambda call: (GRAVE.get(call, PLAIN), NUMBERS.get(call, 512)))

    @property
    def grave(self) -> bool:
        return bool(self.new & _GRAVE_BITS)

    def odds(self, program: str) -> float:
        """How many benign departures of this sort to expect where one novelty of any sort is expected."""
        plain = self.new & ~_GRAVE_BITS
        foreign = (plain & self.foreign).bit_count()
        odds = PLAIN * RATHER_NOT**foreign * SEEN_ELSEWHERE ** (plain.bit_count() - foreign)
        if programs.tool(program.removesuffix(" (forked)")) in ("shell", "interpreter"):
            odds *= SCRIPTS
        if self.processes < YOUNG:
            odds *= TOO_YOUNG
        return float(min([odds, *(GRAVE[call] for call in map(name, bits(self.new & _GRAVE_BITS)))]))


class CallSets(base.AnomalyDetector):
    """How far a process is from what its program is known to do, by the set of system calls it made.

    Expects {"program": path, "used": 512 bits as an integer}. The score is 0 for a known set, below 1 for a new
    mixture of known calls (the distance to the nearest known process), and 1 plus the bits of evidence for calls that
    the program never made: log2 of PLAIN over the odds.

    Parameters: `programs`: how many are remembered; the one not seen for longest goes. `sets`: per program.

    >>> known = CallSets()
    >>> for used in (0b0111, 0b1011): known.learn_one({"program": "/usr/bin/app", "used": used})
    >>> known.score_one({"program": "/usr/bin/app", "used": 0b0111})
    0.0
    >>> 0 < known.score_one({"program": "/usr/bin/app", "used": 0b1111}) < 1
    True
    >>> known.score_one({"program": "/usr/bin/app", "used": 0b0111 | 1 << 101}) > 9
    True

    Reference: Mutz, Valeur, Vigna and Kruegel, Anomalous system call detection, 2006 (models per program).
    """

    def __init__(self, programs: int = 32, sets: int = 4) -> None:
        self.most, self.sets = programs, sets
        self.known: dict[str, Known] = {}
        self.everyone = 0
        self.forgotten = 0
        self._clock = 0

    def learn_one(self, x: dict[Hashable, Any]) -> None:
        program, used = str(x["program"]), int(x["used"])
        entry = self.known.get(program)
        if entry is None:
            if len(self.known) >= self.most:
                del self.known[min(self.known, key=lambda p: self.known[p].last)]
                self.forgotten += 1
            entry = self.known[program] = Known()
        self._clock += 1
        entry.last = self._clock
        entry.processes += 1
        entry.union |= used
        self.everyone |= used
        if used in entry.sets:
            return
        entry.sets.append(used)
        if len(entry.sets) > self.sets:
            closest = min(
                range(len(entry.sets)),
                key=lambda i: min(apart(entry.sets[i], s) for j, s in enumerate(entry.sets) if j != i),
            )
            del entry.sets[closest]

    def score_one(self, x: dict[Hashable, Any]) -> float:
        program, used = str(x["program"]), int(x["used"])
        return self.score(program, used, self.departure(program, used))

    def score(self, program: str, used: int, departure: "Departure | None") -> float:
        """The same, of a departure that is known already."""
        if departure is None:
            entry = self.known[program]
            return min(0.99, min(apart(used, s) for s in entry.sets)) if used not in entry.sets else 0.0
        return 1.0 + max(0.0, log2(PLAIN * SCRIPTS * TOO_YOUNG / departure.odds(program)))

    def departure(self, program: str, used: int) -> Departure | None:
        """None: its program made each of these calls before."""
        entry = self.known.get(program)
        new = used & ~(entry.union if entry else 0)
        if entry is not None and not new:
            return None
        distance, nearest = min(((apart(used, s), p) for p, k in self.known.items() for s in k.sets), default=(1.0, ""))
        return Departure(new, new & ~self.everyone, nearest, distance, entry.processes if entry else 0)

    def forget(self, program: str, calls: list[str]) -> bool:
        """These calls of a program are unknown again. False: they were not known."""
        entry = self.known.get(program)
        mask = sum(1 << n for n in range(8 * BYTES) if name(n) in calls)
        if entry is None or not entry.union & mask:
            return False
        entry.union &= ~mask
        entry.sets = [s & ~mask for s in entry.sets]
        return True

    def dump(self) -> list[Any]:
        """Sets are deflated: programs have most of their calls in common."""
        sets = b"".join(s.to_bytes(BYTES, "little") for k in self.known.values() for s in (k.union, *k.sets))
        rows = [[program, k.processes, k.last, len(k.sets)] for program, k in self.known.items()]
        return [rows, zlib.compress(sets), self.everyone.to_bytes(BYTES, "little"), self.forgotten, self._clock]

    def load(self, state: list[Any]) -> None:
        rows, packed, everyone, self.forgotten, self._clock = state
        data = zlib.decompress(packed)
        sets = (int.from_bytes(data[i : i + BYTES], "little") for i in range(0, len(data), BYTES))
        self.everyone = int.from_bytes(everyone, "little")
        self.known = {}
        for program, processes, last, count in rows:
            entry = self.known[program] = Known()
            entry.processes, entry.last, entry.union = processes, last, next(sets)
            entry.sets = [next(sets) for _ in range(count)]
