"""Addresses and names around the mix."""

import random

MIX, GATEWAY = "10.214.7.2", "10.214.7.1"
"""The mix, and where it sends everything: the town, which is also its resolver."""
PARTNERS = tuple(f"203.0.113.{n}" for n in (10, 11, 12, 13, 40, 41))
ATTACKER = "198.51.100.66"
METADATA = "169.254.169.254"
NAMES = {
    "api.partner.example": PARTNERS,
    "updates.never-asked.example": (ATTACKER,),
}
_rng = random.Random(7)


def _somewhere() -> str:
    first = _rng.choice((23, 45, 62, 81, 94, 130, 151, 177, 188))
    return f"{first}.{_rng.randrange(256)}.{_rng.randrange(256)}.{_rng.randrange(1, 255)}"


CLIENTS = tuple(_somewhere() for _ in range(120))
