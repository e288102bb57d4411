"""The wire format: one header for C and Python."""

import struct

import pytest

from probes import loader, wire
from probes.btf import Btf
from probes.calls import CALLS, Take, When


def test_python_and_the_compiler_agree_on_every_field() -> None:
    """The assertions are compiled for BPF, and into every load of the probes too."""
    text = "#include <uapi/linux/ptrace.h>\n" + wire.HEADER.read_text() + loader.checks()

    assert loader._compile(text) is not None


def test_a_layout_that_differs_is_refused_by_the_compiler() -> None:
    size = wire.LAYOUTS["event"].size
    wrong = loader.checks().replace(f"(struct event) == {size}", f"(struct event) == {size - 8}", 1)
    assert wrong != loader.checks()

    with pytest.raises(loader.CannotLoad, match="size of event"):
        loader._compile("#include <uapi/linux/ptrace.h>\n" + wire.HEADER.read_text() + wrong)


def test_a_hidden_hole_is_an_error() -> None:
    """It would carry kernel memory to the agent."""
    with pytest.raises(ValueError, match="wide is not aligned to 4 bytes"):
        wire.layouts("struct x { u8 narrow; u32 wide; };")
    with pytest.raises(ValueError, match="no multiple of 8"):
        wire.layouts("struct x { u32 one; };")


def test_the_tables_words_have_the_headers_numbers() -> None:
    for word in Take:
        assert wire.ENUMS[f"TAKE_{word.name}"] == word
    for moment in When:
        assert wire.ENUMS[f"WHEN_{moment.name}"] == moment
    assert len(loader.TAKES) == len(Take)


def test_a_row_has_the_headers_size() -> None:
    assert {wire.LAYOUTS["row"].size} == {len(loader.row(call, set(loader.FAMILIES))) for call in CALLS}


def test_every_offset_is_found_in_this_kernel() -> None:
    found = loader.defines(Btf.of_kernel())

    assert {name for name, _ in loader.OFFSETS} <= set(found)


def test_a_record_of_the_wrong_size_is_an_error_and_no_crash() -> None:
    for size in (*range(wire.EVENT_SIZE), wire.EVENT_SIZE + 1):
        with pytest.raises((struct.error, ValueError)):
            wire.decode(bytes(size))


def test_what_is_no_known_address_is_no_address() -> None:
    for raw in (b"", b"\2", b"\2\0\0", b"\x0a\0" + bytes(10), b"\xff\xff" + bytes(20), b"\1\0"):
        assert (None, None) == wire.address(raw)[1:3]
