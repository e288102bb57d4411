"""What only models can say about settings, as config/load.py asks it."""

from collections.abc import Iterable

from config.load import Check
from config.schema import Settings
from config.source import Key


def _detectors(settings: Settings) -> Iterable[tuple[Key, bool, str]]:
    if not settings.models.detectors:  # River's detectors cost 112 MB: only where they are used
        return ()
    from models.detectors import check

    return check(settings)


CHECKS: tuple[Check, ...] = (_detectors,)
