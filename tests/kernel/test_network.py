"""Sockets: who connects, accepts, binds, listens and sends where, and which names are asked for."""

import ctypes
import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from probes import wire
from probes.wire import Record
from tests.kernel.actor import call, in_child
from tests.kernel.watch import Watched


def only(records: list[Record], action: str) -> Record:
    (found,) = [r for r in records if r.action == action]
    return found


def converse(family: int, host: str) -> list[int]:
    """A server and a client of one family: [server's port, client's port]."""
    server = socket.socket(family)
    server.bind((host, 0))
    server.listen(7)
    client = socket.socket(family)
    client.connect(server.getsockname())
    peer, _ = server.accept()
    ports = [server.getsockname()[1], client.getsockname()[1]]
    for sock in (peer, client, server):
        sock.close()
    return ports


@pytest.mark.parametrize(("family", "host"), [(2, "127.0.0.1"), (10, "::1")], ids=["ipv4", "ipv6"])
def test_a_conversation_is_told_from_both_ends(watched: Watched, family: int, host: str) -> None:
    (server, client), records = watched.run(converse, family, host)

    bind, listen = only(records, "bind"), only(records, "listen")
    assert [(host, server, "tcp")] * 2 == [(r.addr, r.port, r.proto) for r in (bind, listen)]
    connect, accept = only(records, "connect"), only(records, "accept")
    assert (host, server, host, client) == (connect.addr, connect.port, connect.laddr, connect.lport)
    assert (host, client, host, server) == (accept.addr, accept.port, accept.laddr, accept.lport)
    assert {family} == {r.family for r in (bind, listen, connect, accept)}
    assert {"connect", "accept", "listen"} == {r.kind for r in (bind, listen, connect, accept)}


def dual_stack() -> list[int]:
    server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    client = socket.create_connection(("127.0.0.1", server.getsockname()[1]))
    peer, _ = server.accept()
    port = client.getsockname()[1]
    for sock in (peer, client, server):
        sock.close()
    return [port]


def test_ipv4_inside_of_ipv6_is_written_as_ipv4(watched: Watched) -> None:
    """One peer has one name, whatever kind of socket it came through."""
    (port,), records = watched.run(dual_stack)

    assert ("127.0.0.1", port) == (only(records, "accept").addr, only(records, "accept").port)


def unix(folder: str) -> int:
    for name in (folder + "/sock", "\0abstract-name"):
        server = socket.socket(socket.AF_UNIX)
        server.bind(name)
        server.listen()
        client = socket.socket(socket.AF_UNIX)
        client.connect(name)
        client.close()
        server.close()
    return 0


def test_a_unix_socket_is_told_by_its_path_or_abstract_name(watched: Watched, tmp_path: Path) -> None:
    _, records = watched.run(unix, str(tmp_path))

    names = [bytes(tmp_path / "sock"), b"@abstract-name"]
    assert names == [r.path for r in records if r.action == "connect"]
    assert names == [r.path for r in records if r.action == "bind"]
    assert {(1, None)} == {(r.family, r.addr) for r in records if r.action in ("connect", "bind")}


def refused() -> int:
    free = socket.create_server(("127.0.0.1", 0))
    port = int(free.getsockname()[1])
    free.close()
    client = socket.socket()
    client.connect_ex(("127.0.0.1", port))
    later = socket.socket()
    later.setblocking(False)
    later.connect_ex(("192.0.2.1", 4444))
    client.close()
    later.close()
    return port


def test_a_connection_that_fails_or_goes_on_is_told_with_its_result(watched: Watched) -> None:
    port, records = watched.run(refused)

    told = [(r.addr, r.port, r.ret) for r in records if r.action == "connect"]
    assert ("127.0.0.1", port, -errno.ECONNREFUSED) == told[0]
    assert ("192.0.2.1", 4444) == told[1][:2]
    assert told[1][2] in (-errno.EINPROGRESS, -errno.ENETUNREACH, -errno.EHOSTUNREACH)


def unconnects() -> int:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", 9))
    call(42, sock.fileno(), bytes(16), 16)
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    netlink.bind((0, 0))
    sock.close()
    netlink.close()
    return 0


def test_taking_a_connection_back_and_netlink_are_not_told(watched: Watched) -> None:
    _, records = watched.run(unconnects)

    assert [("connect", 9)] == [(r.action, r.port) for r in records if r.kind in ("connect", "listen")]


QUERY = struct.pack(">HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0) + b"\3www\7example\3org\0" + struct.pack(">HH", 1, 1)


def ask(how: str, query: bytes) -> list[int]:
    """One question to a resolver on 127.0.0.77:53, and its answer: [asking process, server's process]."""
    stream = how == "tcp"
    server = socket.socket(type=socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.77", 53))
    if stream:
        server.listen()
    answering = os.fork()
    if not answering:
        if stream:
            peer, _ = server.accept()
            asked = peer.recv(4096)
            peer.sendall(asked[:4] + b"\x81\x80" + asked[6:])
        else:
            for _ in range(2 if how == "sendmmsg" else 1):
                asked, peer_name = server.recvfrom(4096)
            server.sendto(asked[:2] + b"\x81\x80" + asked[4:], peer_name)
        os._exit(0)
    server.close()

    def asking() -> None:
        to = ("127.0.0.77", 53)
        if stream:
            client = socket.create_connection(to)
            client.sendall(struct.pack(">H", len(query)) + query)
            client.recv(4096)
            return
        client = socket.socket(type=socket.SOCK_DGRAM)
        if how == "sendto":
            client.sendto(query, to)
            client.recvfrom(4096)
            return
        if how == "sendmsg":
            client.sendmsg([query], [], 0, to)
            client.recvmsg(4096)
            return
        client.connect(to)
        if how == "send":
            client.send(query)
            client.recv(4096)
        elif how == "write":
            os.write(client.fileno(), query)
            os.read(client.fileno(), 4096)
        elif how == "sendmmsg":
            room = [ctypes.create_string_buffer(query, 4096) for _ in range(2)]
            pieces = [ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(r), len(query))) for r in room]
            header = [struct.pack("QIIQQQQIIII", 0, 0, 0, ctypes.addressof(p), 1, 0, 0, 0, 0, 0, 0) for p in pieces]
            headers = ctypes.create_string_buffer(b"".join(header), 128)
            call(307, client.fileno(), headers, 2, 0)
            call(299, client.fileno(), headers, 1, 0, 0)

    pid = in_child(asking)
    os.waitpid(answering, 0)
    return [pid, answering]


@pytest.mark.parametrize("how", ["sendto", "send", "write", "sendmsg", "sendmmsg", "tcp"])
def test_a_question_and_its_answer_are_told_whichever_call_carries_them(watched: Watched, how: str) -> None:
    """glibc uses send and sendmmsg, musl sendto and sendmsg, Go write."""
    (pid, _), records = watched.run(ask, how, QUERY)

    dns = [r for r in records if r.type == wire.DNS]
    answer = QUERY[:2] + b"\x81\x80" + QUERY[4:]
    expected = [("query", QUERY)] * (2 if how == "sendmmsg" else 1) + [("answer", answer)]
    assert expected == [(r.action, r.payload) for r in dns]
    assert {pid} == {r.pid for r in dns}
    assert {("127.0.0.77", 53, "tcp" if how == "tcp" else "udp")} == {(r.addr, r.port, r.proto) for r in dns}


def chatter() -> int:
    a, b = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    b.bind(("127.0.0.1", 0))
    for _ in range(3):
        a.sendto(b"x", b.getsockname())
        b.recvfrom(10)
    port = int(b.getsockname()[1])
    a.close()
    b.close()
    return port


def test_a_datagram_is_told_with_its_address_and_what_comes_is_not(watched: Watched) -> None:
    port, records = watched.run(chatter)

    assert [("127.0.0.1", port, 1)] * 3 == [(r.addr, r.port, r.ret) for r in records if r.action == "udp_send"]
    assert [] == [r for r in records if r.type == wire.DNS]


def bad_addresses() -> int:
    sock = socket.socket()
    for at, size in ((8, 16), (0, 16), (8, 0), (8, 1 << 31)):
        call(42, sock.fileno(), at, size)
    call(42, 999, struct.pack("<HHI", 2, 0x5000, 1) + bytes(8), 16)
    sock.close()
    return 0


def test_an_address_that_cannot_be_read_breaks_nothing(watched: Watched) -> None:
    _, records = watched.run(bad_addresses)

    assert [(-errno.EBADF, 80)] == [(r.ret, r.port) for r in records if r.action == "connect"]
