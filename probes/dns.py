"""DNS messages, read strictly: what a workload asked, what it was told, and which name later connects.

The bytes come from the network or from a hostile program. Compression pointers may only point backwards, so no message
makes a loop, and every field is bounded by the message itself.
"""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 35: "NAPTR",
    64: "SVCB", 65: "HTTPS", 255: "ANY",
}  # fmt: skip
ANSWERS = 64
"""Records read of one answer; more than any real service gives."""
NAMES = 4_096
"""Addresses remembered per workload."""
GRACE = 300
"""Seconds beyond its TTL that a name is believed: programs keep addresses longer than they should."""


class BadMessage(ValueError):
    """Not a DNS message, or not one that we read."""


@dataclass(frozen=True, slots=True)
class Message:
    id: int
    answer: bool
    name: str
    """As asked, in lower case, without the last dot."""
    type: str
    rcode: int = 0
    addresses: tuple[str, ...] = ()
    ttl: int = 0
    """The least of the addresses' TTLs, seconds."""


def parse(raw: bytes) -> Message:
    """The question and the addresses; raises BadMessage.

    >>> parse(bytes.fromhex("1234010000010000000000000377777707657861 6d706c6503636f6d0000010001".replace(" ", "")))
    Message(id=4660, answer=False, name='www.example.com', type='A', rcode=0, addresses=(), ttl=0)
    """
    if len(raw) < 12:
        raise BadMessage("shorter than a header")
    ident, flags, questions, answers = (int.from_bytes(raw[i : i + 2], "big") for i in (0, 2, 4, 6))
    if questions != 1 or flags >> 11 & 0xF not in (0, 1, 2, 4, 5):
        raise BadMessage("not one question")
    name, at = _name(raw, 12)
    if at + 4 > len(raw):
        raise BadMessage("the question is cut")
    kind = int.from_bytes(raw[at : at + 2], "big")
    at += 4
    reply = bool(flags & 0x8000)
    addresses, ttl = _answers(raw, at, min(answers, ANSWERS)) if reply else ((), 0)
    return Message(ident, reply, name, TYPES.get(kind, f"TYPE{kind}"), flags & 0xF, addresses, ttl)


def _answers(raw: bytes, at: int, count: int) -> tuple[tuple[str, ...], int]:
    """As many as are whole: the kernel hands over the beginning of a long answer."""
    found: list[str] = []
    least = 0xFFFFFFFF
    for _ in range(count):
        try:
            _, at = _name(raw, at)
        except BadMessage:
            break
        if at + 10 > len(raw):
            break
        kind, ttl, size = (int.from_bytes(raw[at + i : at + j], "big") for i, j in ((0, 2), (4, 8), (8, 10)))
        data = raw[at + 10 : at + 10 + size]
        at += 10 + size
        if kind == 1 and len(data) == 4:
            found.append(str(IPv4Address(data)))
            least = min(least, ttl)
        elif kind == 28 and len(data) == 16:
            found.append(str(IPv6Address(data)))
            least = min(least, ttl)
    return tuple(found), least if found else 0


def _name(raw: bytes, at: int) -> tuple[str, int]:
    """The name at `at`, and where what follows it begins."""
    labels: list[str] = []
    end = 0
    limit = at
    total = 0
    while True:
        if at >= len(raw):
            raise BadMessage("a name runs out of the message")
        size = raw[at]
        if size & 0xC0 == 0xC0:
            if at + 2 > len(raw):
                raise BadMessage("a pointer is cut")
            target = (size & 0x3F) << 8 | raw[at + 1]
            end = end or at + 2
            if target >= limit:
                raise BadMessage("a pointer that does not point backwards")
            at = limit = target
            continue
        if size & 0xC0:
            raise BadMessage("a label of an unknown kind")
        at += 1
        if size == 0:
            return ".".join(labels), end or at
        if at + size > len(raw):
            raise BadMessage("a label is cut")
        total += size + 1
        if total > 255:
            raise BadMessage("a name longer than 255 bytes")
        labels.append(_label(raw[at : at + size]))
        at += size


def _label(raw: bytes) -> str:
    r"""Printable ASCII as it is, in lower case; a dot inside a label, and every other byte, as \xNN.

    >>> _label(b"WWW"), _label(b"a.b"), _label(b"\x1b[2J")
    ('www', 'a\\x2eb', '\\x1b[2j')
    """
    return "".join(chr(b).lower() if 0x21 <= b <= 0x7E and b not in b".\\" else f"\\x{b:02x}" for b in raw)


def remember(names: OrderedDict[str, tuple[str, int]], message: Message, now_s: int) -> None:
    """An answer's addresses belong to the name that was asked (not to where its CNAMEs lead)."""
    for address in message.addresses:
        names[address] = (message.name, now_s + min(message.ttl, 86_400) + GRACE)
        names.move_to_end(address)
    while len(names) > NAMES:
        names.popitem(last=False)


def recall(names: OrderedDict[str, tuple[str, int]], address: str, now_s: int) -> str | None:
    """The name by which this address was last found; None once it is too old."""
    known = names.get(address)
    if known is None:
        return None
    if known[1] < now_s:
        del names[address]
        return None
    return known[0]
