"""Scores of normal and of attacks, side by side: area under the curve, and detection at a price in false alarms."""

import math

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]


def auc(normal: Scores, attack: Scores) -> float:
    """Chance that an attack scores above a normal one, ties half: Mann and Whitney's U, exactly.

    >>> auc(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    0.875
    """
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, attack, "left")
    upto = np.searchsorted(ordered, attack, "right")
    return float((below + upto).sum() / 2 / (len(normal) * len(attack)))


def threshold(normal: Scores, rate: float) -> float:
    """The lowest threshold that at most this share of the normal scores is above. Ties are never split: where many
    normal scores are equal, fewer false alarms are taken than were allowed.

    >>> threshold(np.array([1.0, 2.0, 3.0, 4.0]), 0.25), threshold(np.array([1.0, 4.0, 4.0, 4.0]), 0.25)
    (3.0, 4.0)
    """
    allowed = math.floor(rate * len(normal) + 1e-9)
    if allowed >= len(normal):
        return -math.inf
    return float(np.sort(normal)[len(normal) - 1 - allowed])


def detection(normal: Scores, attack: Scores, rate: float) -> float:
    """Share of the attacks above that threshold.

    >>> detection(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.5, 3.0]), 0.25)
    0.5
    """
    return float((attack > threshold(normal, rate)).mean())
