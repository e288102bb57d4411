"""DNS messages: what honest resolvers send, and what nobody should."""

from collections import OrderedDict
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.dns import NAMES, BadMessage, Message, parse, recall, remember


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def query(text: str, kind: int = 1, ident: int = 7) -> bytes:
    return (
        ident.to_bytes(2, "big")
        + bytes.fromhex("01000001000000000000")
        + name(text)
        + kind.to_bytes(2, "big")
        + b"\0\1"
    )


def answer(text: str, *addresses: str, ttl: int = 60, cname: str | None = None) -> bytes:
    records = []
    if cname:
        target = name(cname)
        records.append(b"\xc0\x0c\0\5\0\1" + ttl.to_bytes(4, "big") + len(target).to_bytes(2, "big") + target)
    for address in addresses:
        packed = ip_address(address).packed
        kind = b"\0\x01" if len(packed) == 4 else b"\0\x1c"
        records.append(b"\xc0\x0c" + kind + b"\0\1" + ttl.to_bytes(4, "big") + len(packed).to_bytes(2, "big") + packed)
    head = b"\0\7\x81\x80\0\1" + len(records).to_bytes(2, "big") + b"\0\0\0\0"
    return head + query(text)[12:] + b"".join(records)


def test_a_question_is_read() -> None:
    """Name and type; the case of the name does not matter."""
    assert Message(7, False, "www.example.com", "AAAA") == parse(query("WWW.Example.com", 28))


def test_addresses_belong_to_the_name_that_was_asked() -> None:
    """Not to where its CNAME leads."""
    message = parse(answer("shop.example", "192.0.2.1", "2001:db8::1", cname="edge.cdn.example"))

    assert ("shop.example", ("192.0.2.1", "2001:db8::1"), 60) == (message.name, message.addresses, message.ttl)


def test_a_cut_answer_gives_what_is_whole() -> None:
    """The kernel hands over the beginning of a long message."""
    assert ("192.0.2.1",) == parse(answer("a.example", "192.0.2.1", "192.0.2.2")[:-3]).addresses


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\0" * 11,
        query("a.b")[:-5],
        b"\0\7\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
        b"\0\7\1\0\0\1\0\0\0\0\0\0" + b"\x3f" + b"a" * 10,
        b"\0\7\1\0\0\1\0\0\0\0\0\0" + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",
        b"\0\7\1\0\0\1\0\0\0\0\0\0\x80\0\1\0\1",
    ],
    ids=["empty", "short", "cut", "loop", "label past the end", "long name", "unknown label"],
)
def test_a_hostile_message_is_refused(hostile: bytes) -> None:
    """Loops, lengths that lie, names that never end."""
    with pytest.raises(BadMessage):
        parse(hostile)


def test_control_characters_in_a_name_become_text() -> None:
    """No terminal or page ever sees them."""
    raw = b"\0\7\1\0\0\1\0\0\0\0\0\0\x05\x1b[2J\xff\x02.x\0\0\1\0\1"

    assert "\\x1b[2j\\xff.\\x2ex" == parse(raw).name


@given(st.binary(max_size=512))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    """Never another exception, never more than the message could hold."""
    try:
        message = parse(data)
    except BadMessage:
        return
    assert len(message.name) <= 255 * 4


@given(st.integers(0, 200), st.integers(0, 255))
def test_any_flipped_byte_too(at: int, value: int) -> None:
    """As above, near a real message."""
    data = bytearray(answer("shop.example", "192.0.2.1", cname="edge.example"))
    data[at % len(data)] = value
    try:
        parse(bytes(data))
    except BadMessage:
        pass


def test_names_are_forgotten_when_old_and_when_too_many() -> None:
    """A TTL later plus grace, an address has no name any more; the oldest goes first."""
    names: OrderedDict[str, tuple[str, int]] = OrderedDict()
    remember(names, parse(answer("a.example", "192.0.2.1")), 1000)

    assert "a.example" == recall(names, "192.0.2.1", 1060)
    assert recall(names, "192.0.2.1", 1000 + 60 + 301) is None
    for i in range(NAMES + 10):
        remember(names, Message(1, True, "x", "A", 0, (f"10.0.{i // 256}.{i % 256}",), 60), 1000)
    assert NAMES == len(names)
