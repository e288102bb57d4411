"""What a process keeps in the kernel: its BPF programs, and the memory of their maps."""

import ctypes
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probes import bpf

PROGRAM_BY_ID, MAP_BY_ID, INFO = 13, 14, 15
PROGRAM_ARRAY = 3
WATCHING = {2: "kprobe", 5: "tracepoint", 7: "perf event", 17: "raw tracepoint", 24: "raw tracepoint", 26: "tracing"}
"""Types of programs that cost the calls that they watch something."""


def load_empty(name: str) -> int:
    """Attach a program that does nothing but return; it stays while the descriptor does."""
    code, licence = ctypes.create_string_buffer(bpf._RETURN_0, 16), ctypes.create_string_buffer(b"GPL")
    attribute = struct.pack("IIQQ", bpf.RAW_TRACEPOINT, 2, ctypes.addressof(code), ctypes.addressof(licence))
    return bpf.attach_raw_tracepoint(name, bpf._bpf(bpf._PROG_LOAD, attribute)[0])


@contextmanager
def opened(command: int, number: int) -> Iterator[int]:
    descriptor, _ = bpf._bpf(command, struct.pack("III", number, 0, 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def watching() -> dict[int, str]:
    """Programs of anybody that are loaded and watch calls: id -> type."""
    found = {}
    for number in bpf.program_ids():
        try:
            with opened(PROGRAM_BY_ID, number) as program:
                kind, _ = program_info(program)
        except OSError:
            continue  # it went meanwhile
        if kind in WATCHING:
            found[number] = WATCHING[kind]
    return found


def program_info(descriptor: int) -> tuple[int, list[int]]:
    """Its type, and the ids of its maps."""
    maps = (ctypes.c_uint32 * 64)()
    info = bytearray(256)
    struct.pack_into("I", info, 52, len(maps))
    struct.pack_into("Q", info, 56, ctypes.addressof(maps))
    buffer = ctypes.create_string_buffer(bytes(info), len(info))
    bpf._bpf(INFO, struct.pack("IIQ", descriptor, len(info), ctypes.addressof(buffer)))
    return struct.unpack_from("I", buffer.raw, 0)[0], list(maps[: struct.unpack_from("I", buffer.raw, 52)[0]])


def facts(pid: int | str, descriptor: int | str) -> dict[str, int]:
    text = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text()
    return {key: int(value) for key, value in re.findall(r"^(\w+):\t(\d+)$", text, re.MULTILINE)}


def map_memory(pid: int) -> dict[int, int]:
    """Bytes by map id: the maps that a process holds, and those of the programs that it holds, however reached."""
    maps: dict[int, int] = {}
    todo: list[int] = []
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            found = facts(pid, descriptor)
        except OSError:
            continue
        if "map_id" in found:
            _add(found["map_id"], maps, todo)
        elif "prog_id" in found:
            todo.append(found["prog_id"])
    done: set[int] = set()
    while todo:
        number = todo.pop()
        if number in done:
            continue
        done.add(number)
        with opened(PROGRAM_BY_ID, number) as program:
            for one in program_info(program)[1]:
                _add(one, maps, todo)
    return maps


def _add(number: int, maps: dict[int, int], todo: list[int]) -> None:
    """A map's memory; and the programs that it holds, where it is a table of such (tail calls)."""
    if number in maps:
        return
    with opened(MAP_BY_ID, number) as descriptor:
        found = facts("self", descriptor)
        maps[number] = found.get("memlock", 0)
        if found.get("map_type") != PROGRAM_ARRAY:
            return
        for key in range(found["max_entries"]):
            try:
                todo.append(int.from_bytes(bpf.lookup(descriptor, struct.pack("I", key), 4), "little"))
            except FileNotFoundError:
                continue
