"""What the tasks do. Engines import this on both sides, so that functions travel as a name."""

from __future__ import annotations

import time


def identity(x: int) -> int:
    return x


def increment(x: int) -> int:
    return x + 1


def add(a: int, b: int) -> int:
    return a + b


def add_all(values: list[int]) -> int:
    return sum(values)


def nap(i: int, seconds: float) -> int:
    time.sleep(seconds)
    return i


def node(number: int, seconds: float, inputs: list[int]) -> int:
    """A task of a graph. Who has its value right has run all that it depends on."""
    if seconds:
        time.sleep(seconds)
    return hash((number, *inputs))  # the same in every process: only those of texts differ


def square(x: float) -> float:
    time.sleep(1.0)
    return x * x
