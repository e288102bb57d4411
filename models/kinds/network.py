"""connect, accept, listen and dns: program -> protocol -> name or address -> port."""

import re
from collections.abc import Collection
from functools import lru_cache, partial

from models import paths, programs
from models.kinds.view import REFUSED, Known, View, Weight, who
from models.tree import ANY, SPECIAL, Node
from probes.event import Event

EPHEMERAL = 32_768
STRANGE = frozenset({"packet", "alg", "vsock", "xdp", "bluetooth", "can"})
"""Socket families that see or reach past the container's own network."""
POOL_PORTS = frozenset({3333, 4444, 5555, 6666, 7777, 14444, 45700, 1337, 31337, 9001})
"""Ports that mining pools and remote shells like: a weight, never a verdict."""

_PRIVATE = re.compile(
    r"^(?:10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|169\.254\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|f[cd]|fe80)",
    re.IGNORECASE,
)
_LOOP = re.compile(r"^(?:127\.|::1$|0\.0\.0\.0$|::$|::ffff:127\.)")
_HARMLESS_UNIX = re.compile(
    r"^(?:/var)?/run/(?:nscd/|systemd/(?:journal|notify|userdb|private|resolve)|dbus/system_bus)|^/dev/log$|^/run/systemd/"
)
_TWO_LEVEL = frozenset("co com org net gov edu ac or ne".split())


def plain_address(ip: str) -> str:
    return ip[7:] if ip.startswith("::ffff:") and "." in ip else ip


def prefix(ip: str) -> str:
    """
    >>> prefix("203.0.113.7"), prefix("2001:db8:1:2::5")
    ('203.0.113.', '2001:db8:1:')
    """
    if "." in ip:
        return ip.rsplit(".", 1)[0] + "."
    return ":".join(ip.split(":")[:3]) + ":"


def domain(name: str) -> str:
    """
    >>> domain("a.b.example.co.uk"), domain("www.example.com"), domain("db")
    ('example.co.uk', 'example.com', 'db')
    """
    labels = name.rstrip(".").lower().split(".")
    if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _TWO_LEVEL:
        return ".".join(labels[-3:])
    return ".".join(labels[-2:])


def split_address(text: str) -> tuple[str, str]:
    """
    >>> split_address("[::1]:80"), split_address("10.0.0.1:5432"), split_address("db")
    (('::1', '80'), ('10.0.0.1', '5432'), ('db', ''))
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        return text.strip("[]"), ""
    return host.strip("[]"), port


def is_address(host: str) -> bool:
    """Not a name: nobody asked for one before it was connected to, as far as was seen.

    >>> is_address("203.0.113.7"), is_address("2001:db8::5"), is_address("api.example"), is_address("7up.example")
    (True, True, False, False)
    """
    return ":" in host or host.replace(".", "").isdigit()


def unix_name(text: str) -> str:
    name = text.removeprefix("unix:")
    if name.startswith("/"):
        return "/" + "/".join(paths.segments(name))
    return paths.segment(name[:60])


def view_connect(event: Event, names: dict[str, str] | None = None) -> View | None:
    program = who(event)
    target = event.object or ""
    detail = event.detail
    if target.startswith("unix:") or detail.get("family") == "unix":
        if not target or target == "unix:":
            return None
        return View(("connect", program, "unix", unix_name(target)), "unix", target)
    if detail.get("family") in STRANGE:
        return View(("connect", program, str(detail["family"]), "socket", ""), "strange", target)
    if detail.get("family") not in (None, "inet", "inet6"):
        return None
    remote = event.remote
    ip, port = (remote.ip, str(remote.port or "")) if remote is not None and remote.ip else split_address(target)
    if not ip:
        return None
    ip = plain_address(ip)
    proto = str(detail.get("proto") or ("udp" if event.action == "udp_send" else "tcp"))
    shown = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    if proto == "udp" and port == "53":
        return View(("connect", "(any)", "resolver", ip, "53"), "resolver", shown)
    if _LOOP.match(ip):
        number = int(port) if port.isdigit() else 0
        return View(
            ("connect", program, proto, "127.0.0.1", "<high>" if number >= EPHEMERAL else port), "loopback", shown
        )
    name = (remote.name if remote is not None else None) or (names.get(ip) if names else None)
    if name:
        parts = name.rstrip(".").lower().split(".")
        label = ".".join(paths.segment(p) for p in parts[-8:])
        return View(
            ("connect", program, proto, label, port),
            "private" if _PRIVATE.match(ip) else "external",
            f"{shown} ({name})",
        )
    return View(("connect", program, proto, ip, port), "private" if _PRIVATE.match(ip) else "external", shown)


def weigh_connect(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    _, program, proto, host, *tail = view.tokens
    port = tail[0] if tail else ""
    kind = programs.tool(program)
    by_hand = kind in ("shell", "download", "network", "recon", "change")
    what = (
        f"{programs.base(program)} in {{workload}} connected to {view.path}"
        if event.action != "udp_send"
        else f"{programs.base(program)} in {{workload}} sent to {view.path}"
    )
    attack = ("T1071",)
    peers = known.below("connect", program, proto)
    mine = {h: n.children for h, n in peers.items() if n.born != known.doubted}
    near = partial(_peers, program, mine)
    if view.sort == "strange":
        return Weight(0.1, f"{programs.base(program)} in {{workload}} used a {proto} socket", near, "high", ("T1040",))
    if proto == "unix":
        if _HARMLESS_UNIX.match(host):
            return Weight(20.0, what, near, "low", ())
        return Weight(0.5, what, near, "medium", ())
    if view.sort == "resolver":
        dests = sorted(nodes[2].children if len(nodes) > 2 and depth < 4 else [])
        return Weight(
            0.3,
            f"{{workload}} asks another DNS resolver: {view.path}",
            f"its usual: {', '.join(dests[:3]) or 'none'}",
            "medium",
            ("T1071.004",),
        )
    if view.sort == "loopback":
        if port == "<high>":
            return Weight(3.0, what, near, "low", attack)
        own = _listens(known, port)
        return Weight(5.0 if own else 0.6, what, near, "low", attack)
    others = [p for p in known.below("connect") if p != program and port in known.below("connect", p, proto, host)]
    if others:
        return Weight(
            0.3 if by_hand else 2.5,
            what,
            f"so far only {programs.base(others[0])} does",
            "medium" if by_hand else "low",
            attack,
        )
    if (proto == "udp" and port in known.below("connect", program, "tcp", host)) or (
        proto == "udp" and port in ("0", "")
    ):
        return Weight(8.0, what, near, "low", attack)
    if depth == 4:
        return Weight(
            0.4, what, f"there it usually uses port {', '.join(sorted(nodes[4].children)[:3])}", "medium", attack
        )
    if is_address(host):
        near_ones = [h for h, ports in mine.items() if h.startswith(prefix(host)) and (port in ports or ANY in ports)]
        if len(near_ones) > 1:
            return Weight(6.0, what, near, "low", attack)
        if near_ones:
            return Weight(0.5, what, f"its usual neighbour there: {near_ones[0]}", "medium", attack)
    else:
        kin = [h for h, ports in mine.items() if not h[:1].isdigit() and domain(h) == domain(host) and port in ports]
        if kin:
            return Weight(1.5, what, f"in the same domain it knows {kin[0]}", "low", attack)
    odds = 0.15 if view.sort == "external" else 0.25
    if by_hand:
        odds *= 0.3
    if port.isdigit() and int(port) in POOL_PORTS:
        odds *= 0.3
    return Weight(odds, what, near, "high" if by_hand or odds < 0.1 else "medium", attack)


def _peers(program: str, mine: Collection[str]) -> str:
    if not mine:
        return f"{programs.base(program)} never connected anywhere before"
    return f"its usual peers: {', '.join(sorted(mine)[:3])}"


def _listens(known: Known, port: str) -> bool:
    """Does any program of the workload listen on this port?"""
    return any(
        port in known.below("listen", p, proto, where)
        for p in known.below("listen")
        for proto in known.below("listen", p)
        for where in known.below("listen", p, proto)
    )


def view_accept(event: Event) -> View | None:
    if event.result < 0:
        return None
    port = str(event.detail.get("lport") or event.detail.get("local_port") or "")
    if not port:
        local = event.detail.get("local")
        port = split_address(str(local))[1] if local else ""
    target = event.object or ""
    remote = event.remote
    if target.startswith("unix:") or event.detail.get("family") == "unix":
        return View(("accept", "unix", unix_name(target)), "plain", target)
    ip = remote.ip if remote is not None and remote.ip else split_address(target)[0]
    if not ip:
        return None
    return View(("accept", port or "(listener)", prefix(plain_address(ip))), "plain", ip)


def weigh_accept(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    what = f"{programs.base(programs.program(event.process))} in {{workload}} was reached by {view.path}"
    near = f"usual peers: {', '.join(sorted(nodes[-1].children)[:3])}" if depth == 2 else "nobody ever connected there"
    return Weight(20.0 if depth == 2 else 3.0, what, near, "low", ())


def view_listen(event: Event) -> View | None:
    if event.result < 0 and event.result not in REFUSED:
        return None
    program = who(event)
    target = event.object or ""
    if target.startswith("unix:") or event.detail.get("family") == "unix":
        if target in ("", "unix:"):
            return None
        return View(("listen", program, "unix", unix_name(target)), "unix", target)
    if event.detail.get("family") in STRANGE:
        return View(("listen", program, str(event.detail["family"]), "any", "socket"), "strange", target)
    if event.detail.get("family") not in (None, "inet", "inet6"):
        return None
    ip, port = split_address(target)
    if not port and event.remote is not None and event.remote.port is not None:
        port = str(event.remote.port)
    proto = str(event.detail.get("proto") or "tcp")
    number = int(port) if port.isdigit() else 0
    if number == 0 and event.action == "bind":
        return None
    where = "loopback" if _LOOP.match(ip) and ip not in ("0.0.0.0", "::") else "any"
    return View(
        ("listen", program, proto, where, "<high>" if number >= EPHEMERAL or number == 0 else port), where, target
    )


def weigh_listen(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    program, proto = view.tokens[1], view.tokens[2]
    what = f"{programs.base(program)} in {{workload}} listens on {view.path}"
    near = f"{programs.base(program)} never listened {'there' if depth > 1 else 'before'}"
    if view.sort == "strange":
        return Weight(
            0.1, f"{programs.base(program)} in {{workload}} opened a {proto} socket", near, "high", ("T1040",)
        )
    if proto == "unix":
        return Weight(0.6, what, near, "low", ())
    port = view.tokens[4]
    if port == "<high>":
        return Weight(4.0 if proto == "udp" else 0.5, what, near, "medium", ("T1571",))
    elsewhere = _listens(known, port)
    if elsewhere:
        return Weight(0.8, what, "another program listens there", "medium", ("T1571",))
    return Weight(
        0.3 if view.sort == "loopback" else 0.08,
        what,
        near,
        "medium" if view.sort == "loopback" else "high",
        ("T1571",),
    )


def view_dns(event: Event) -> View | None:
    if event.action != "query" or not event.object:
        return None
    return view_name(event.object)


@lru_cache(maxsize=8192)
def view_name(asked: str) -> View:
    name = asked.rstrip(".").lower()
    if name.endswith((".in-addr.arpa", ".ip6.arpa")):
        return View(("dns", "arpa", "<address>"), "reverse", asked)
    top = domain(name)
    labels = name.removesuffix(top).rstrip(".").split(".")
    packed = max(map(len, labels)) >= 40 or sum(map(len, labels)) >= 80
    rest = ".".join(paths.segment(label) for label in labels[-6:])
    return View(("dns", top, (SPECIAL if packed else "") + rest), "packed" if packed else "plain", asked)


def weigh_dns(view: View, depth: int, nodes: list[Node], known: Known, event: Event) -> Weight:
    what = f"{{workload}} asked for {view.path}"
    if depth == 2:
        near = f"{len(nodes[-1].children)} names of {view.tokens[1]} are usual"
        return Weight(
            0.1 if view.sort == "packed" else 1.5,
            what,
            near,
            "medium" if view.sort == "packed" else "low",
            ("T1071.004",),
        )
    usual = sorted(nodes[1].children if len(nodes) > 1 else [])
    near = f"usual domains: {', '.join(usual[:3])}" if usual else "it never asked for any name"
    odds = (
        2.0 if view.sort == "reverse" else 0.7 if "." not in view.tokens[1] else 0.1 if view.sort == "packed" else 0.2
    )
    return Weight(odds, what, near, "medium", ("T1071.004",))
