"""The graphs of `rsds`, as rdask-bench makes them: the very same tasks in the same order."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .engine import NotApplicable

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Graph:
    """For each task those before it that it depends on, and how long it sleeps."""

    inputs: list[list[int]]
    naps_s: list[float]

    def edges(self) -> int:
        return sum(map(len, self.inputs))

    def sinks(self) -> list[int]:
        """The tasks that none depends on."""
        needed = {one for inputs in self.inputs for one in inputs}
        return [task for task in range(len(self.inputs)) if task not in needed]

    def fold(self, value: Callable[[int, list[Any]], Any]) -> list[Any]:
        """The value of every task, made of those of its inputs."""
        values: list[Any] = []
        for task, inputs in enumerate(self.inputs):
            values.append(value(task, [values[one] for one in inputs]))
        return values


def load(name: str) -> Graph:
    target = Path(os.environ.get("CARGO_TARGET_DIR", _ROOT / "target"))
    built = [target / profile / "rdask-bench" for profile in ("release", "debug")]
    program = next((one for one in built if one.exists()), None)
    if program is None:
        raise NotApplicable("rdask-bench has its graphs: cargo build --release -p rdask-bench")
    said = subprocess.run(
        [program, "--workload", "rsds", "--graph", name, "--print-graph"],
        stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    return parse(said)


def parse(text: str | bytes) -> Graph:
    found = json.loads(text)
    naps_s = [0.0] * len(found["inputs"])
    for task, micros in found["naps_us"]:
        naps_s[task] = micros / 1e6
    return Graph(found["inputs"], naps_s)
