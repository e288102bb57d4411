"""Bytes of the kernel as text, and paths made whole. Whatever an attacker wrote stays readable and says what it was."""

from functools import lru_cache
from posixpath import normpath


def text(raw: bytes) -> str:
    r"""UTF-8; a byte that is not reads \xNN.

    >>> text(b"caf\xc3\xa9"), text(b"\xff.sh")
    ('café', '\\xff.sh')
    """
    return raw.decode("utf-8", "backslashreplace")


@lru_cache(maxsize=2_048)
def path(base: bytes | None, typed: bytes) -> str:
    """The path that was meant: `typed` against the directory `base`, with //, /./ and /../ resolved as text.

    A relative path whose base is unknown stays relative, as typed. Symbolic links are not followed.

    >>> path(b"/srv", b"../etc//passwd"), path(None, b"a/./b"), path(b"/x", b"//bin/sh")
    ('/etc/passwd', 'a/b', '/bin/sh')
    """
    if typed.startswith(b"/"):
        whole = typed
    elif base is not None:
        whole = base + b"/" + typed if typed else base
    else:
        whole = typed
    if not whole:
        return ""
    clean = normpath(text(whole))
    return clean[1:] if clean.startswith("//") else clean
