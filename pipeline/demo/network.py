"""Two private network namespaces joined by one cable: rtnetlink and ioctl, because a minimal system has no `ip`."""

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP = 0x20000000, 0x40000000, 0x2000000
SIOCSIFADDR, SIOCSIFFLAGS, SIOCSIFNETMASK, IFF_UP_RUNNING = 0x8916, 0x8914, 0x891C, 0x41
RTM_NEWLINK, NLM_REQUEST_ACK_CREATE_EXCL = 16, 0x1 | 0x4 | 0x400 | 0x200
IFLA_IFNAME, IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 3, 18, 28, 1, 2, 1

libc = ctypes.CDLL(None, use_errno=True)


def call(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    call(libc.unshare(flags), "unshare")


def setns(descriptor: int, flags: int = 0) -> None:
    call(libc.setns(descriptor, flags), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    call(libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def pivot_root(new: str, old: str) -> None:
    call(libc.syscall(155, os.fsencode(new), os.fsencode(old)), "pivot_root")


def die_with_parent(signal: int = 9) -> None:
    """PR_SET_PDEATHSIG: a demo that is killed takes its children along."""
    call(libc.prctl(1, signal, 0, 0, 0), "prctl")


def inside(descriptor: int) -> socket.socket:
    """A socket of the network namespace behind `descriptor`; ioctls on it configure that namespace."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        setns(descriptor, CLONE_NEWNET)
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    finally:
        setns(here, CLONE_NEWNET)
        os.close(here)


def up(control: socket.socket, name: str, address: str | None = None) -> None:
    """Give `name` ("eth0", or "eth0:1" for one more address) an IPv4 address of a /24 and switch it on."""
    label = name.encode()
    if address:
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.0")):
            packed = struct.pack("16sHH4s8x", label, socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, packed)
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", label, IFF_UP_RUNNING))


def cable(name: str, peer: str, peer_namespace: int) -> None:
    """A veth pair: `name` in this thread's namespace, `peer` in the namespace of that descriptor."""

    def attribute(kind: int, payload: bytes) -> bytes:
        return struct.pack("HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)

    interface = struct.pack("BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
    other = interface + attribute(IFLA_IFNAME, peer.encode() + b"\0")
    other += attribute(IFLA_NET_NS_FD, struct.pack("i", peer_namespace))
    info = attribute(IFLA_INFO_KIND, b"veth\0") + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other))
    body = interface + attribute(IFLA_IFNAME, name.encode() + b"\0") + attribute(IFLA_LINKINFO, info)
    header = struct.pack("IHHII", 16 + len(body), RTM_NEWLINK, NLM_REQUEST_ACK_CREATE_EXCL, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.send(header + body)
        number = -struct.unpack_from("i", route.recv(8192), 16)[0]
    if number:
        raise OSError(number, f"veth pair {name}/{peer}: {os.strerror(number)}")
