"""What is run, and which figures of it are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

# Whom rdask is compared with; rayon is no engine but a bound.
PEERS = ("dask", "hyperqueue", "ray", "rayon")


@dataclass(frozen=True)
class Metric:
    """A figure of a run: fields of its line, the second divides the first."""

    label: str
    field: str
    unit: str
    scale: float = 1.0
    divisor: str | None = None
    is_rate: bool = False  # more is better

    def of(self, line: dict) -> float | None:
        if self.field not in line or (self.divisor and self.divisor not in line):
            return None
        return line[self.field] * self.scale / (line[self.divisor] if self.divisor else 1.0)


@dataclass(frozen=True)
class Case:
    """A workload with its arguments."""

    name: str
    workload: str
    metrics: tuple[Metric, ...]
    n: int
    quick_n: int
    rest: tuple[str, ...] = ()
    quick_rest: tuple[str, ...] = ()
    full_rest: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        return ["--workload", self.workload, "--n", str(self.n), *self.rest, *self.full_rest]

    def quick(self) -> Case:
        return replace(self, n=self.quick_n, full_rest=self.quick_rest)


def _per_task(label: str) -> tuple[Metric, ...]:
    return (Metric(label, "us_per_task", "us per task"),)


def _rate(name: str, label: str) -> Metric:
    return Metric(label, f"{name}_GBps", "GB/s", is_rate=True)


def _rsds(family: str, what: str, graph: str, quick_graph: str) -> Case:
    """On as many slots as the other short tasks; the size is the graph's own."""
    metrics = _per_task(f"a graph of RSDS: {what}")
    full, quick = (("--graph", one) for one in (graph, quick_graph))
    return Case(f"rsds {family}", "rsds", metrics, 1, 1, ("--threads", "2"), quick, full)


_OVER_IDEAL = Metric("sleeps of 1 s, time over ideal", "overhead_ms", "ms")
_SHORT = ("--total", "8")

# In the order of the table. What is quick is smaller, not other.
CASES = (
    Case("noop", "noop", _per_task("map and gather of no-ops"), 100_000, 5_000),
    Case("tree", "tree", _per_task("tree of single submits"), 1 << 13, 1 << 10),
    Case("merge", "merge", _per_task("a task that takes all"), 10_000, 1_000),
    Case("chain", "chain", _per_task("chain, each on the one before"), 1_000, 200),
    Case(
        "latency",
        "latency",
        (
            Metric("one task, submit to result, median", "p50_us", "us"),
            Metric("the same, 99th percentile", "p99_us", "us"),
        ),
        1_000,
        200,
    ),
    _rsds("tree", "pairs down to one", "tree-13", "tree-10"),
    _rsds("numpy", "a matrix is transposed and added", "numpy-50K-50", "numpy-50K-10"),
    _rsds("groupby", "a table is grouped", "groupby-360-1S-8H", "groupby-90-1S-8H"),
    Case("spin", "spin", _per_task("tasks that compute for 100 us"), 20_000, 5_000),
    Case(
        "sleep",
        "sleep",
        (Metric("sleeps of 10 ms, 16 slots, by ideal", "seconds", "x ideal", divisor="ideal_s"),),
        8_000,
        1_600,
        ("--workers", "4", "--threads", "4", "--nap-ms", "10"),
    ),
    Case("square16", "square16", (_OVER_IDEAL,), 16, 16),
    Case(
        "uneven spread",
        "uneven",
        (Metric("uneven sleeps, time by ideal", "seconds", "x ideal", divisor="ideal_s"),),
        2_000,
        800,
        ("--variant", "spread"),
        _SHORT,
    ),
    Case(
        "uneven late",
        "uneven",
        (Metric("the same, workers come late", "seconds", "x ideal", divisor="ideal_s"),),
        2_000,
        800,
        ("--variant", "late"),
        _SHORT,
    ),
    Case("kill", "kill", (Metric("half the workers are killed", "seconds", "s"),), 400, 400),
    Case("join", "join", (Metric("as many workers again join", "seconds", "s"),), 64, 64),
    Case(
        "transfer",
        "transfer",
        (
            _rate("transfer", "array to another worker, summed"),
            _rate("gather", "array to the client"),
            _rate("scatter", "array from the client"),
        ),
        1 << 25,
        1 << 23,
    ),
    Case(
        "startup", "startup", (Metric("cold start to a result", "seconds", "ms", scale=1e3),), 1, 1
    ),
)


def chosen(names: Sequence[str], is_quick: bool) -> list[Case]:
    """The cases of workloads, `NAME` or `NAME:N`; all if none is named."""
    cases = [case.quick() for case in CASES] if is_quick else list(CASES)
    if not names:
        return cases
    found = []
    for asked in names:
        name, _, n = asked.partition(":")
        of_name = [case for case in cases if case.workload == name]
        if not of_name:
            known = ", ".join(dict.fromkeys(case.workload for case in CASES))
            raise ValueError(f"no workload {name}; there are {known}")
        found += [replace(case, n=int(n)) if n else case for case in of_name]
    return found
