"""Tasks with arrays; apart from the others, whose processes need no numpy."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def filled(n: int, value: float) -> Array:
    return np.full(n, value)


def total(array: Array) -> float:
    return float(array.sum())


def length(array: Array) -> int:
    return len(array)
