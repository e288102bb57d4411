"""Times as people and files have them."""

from datetime import UTC, datetime


def rfc3339(time_ns: int) -> str:
    """To the microsecond, exactly.

    >>> rfc3339(1_795_379_467_123_456_789)
    '2026-11-22T20:31:07.123456Z'
    """
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"
