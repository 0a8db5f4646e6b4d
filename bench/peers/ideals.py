"""What workloads would take at least; the same as in `bench/src/joins.rs` and `uneven.rs`."""

from __future__ import annotations

import heapq

_MASK = (1 << 64) - 1


def divisible_s(work_s: float, slot_free_s: list[float]) -> float:
    """When work of so many slot-seconds, divisible at will, is through at the earliest."""
    total, end = 0.0, float("inf")
    for nth, free in enumerate(sorted(slot_free_s)):
        if free >= end:
            break
        total += free
        end = (work_s + total) / (nth + 1)
    return end


def list_s(count: int, task_s: float, slot_free_s: list[float]) -> float:
    """When the last of `count` equal tasks ends if each goes to the slot that is free first."""
    free = list(slot_free_s)
    heapq.heapify(free)
    end = 0.0
    for _ in range(count):
        end = max(end, free[0] + task_s)
        heapq.heapreplace(free, free[0] + task_s)
    return end


def slots(joined_s: list[float], threads: int) -> list[float]:
    """When each slot is free if each worker has so many."""
    return [joined for joined in joined_s for _ in range(threads)]


def uneven_lengths_s(n: int, total_s: float) -> list[float]:
    """From a heavy-tailed distribution, cut at 200 times the least, scaled to the total."""
    uniform = [(_splitmix64(42 + i) >> 11) / (1 << 53) for i in range(n)]
    raw = [min((1 - u) ** (-1 / 1.2), 200.0) for u in uniform]
    factor = total_s / sum(raw)
    return [factor * r for r in raw]


def _splitmix64(x: int) -> int:
    z = (x + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
