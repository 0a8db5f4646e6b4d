"""The workloads, as rdask-bench has them: `bench/src/workloads.rs`.

Each checks its results; the clock runs from before the first submission to after the last result
is in the client's memory.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import graphs, ideals, processes, tasks
from .engine import Engine, Kind, NotApplicable

# A worker that has not registered by then never will.
START_WITHIN_S = 60.0


# What only some workloads have, unless told otherwise: the same as in rdask-bench. A line tells of
# other values.
USUAL = {"total": 20.0, "graph": "tree-15", "nap_ms": 100.0}


@dataclass(frozen=True)
class Setup:
    """What to run on and with."""

    n: int
    workers: int
    threads: int
    variant: str | None
    total: float = USUAL["total"]
    graph: str = USUAL["graph"]
    nap_ms: float = USUAL["nap_ms"]


class Bench:
    """A cluster for one run of one workload, a client of it, a clock."""

    def __init__(self, setup: Setup, load: Callable[[], Engine]) -> None:
        self.setup = setup
        self._load = load
        self._load1 = processes.load1()
        self._before: dict[str, dict[int, float]] = {}
        self._start = 0.0
        self.engine: Engine | None = None

    def begin(self, kind: Kind = Kind.ORDINARY, workers: int | None = None) -> Engine:
        """Starts the cluster, warms it up, and starts the clock."""
        workers = workers or self.setup.workers
        engine = self.engine = self._load()
        engine.start(workers, self.setup.threads, kind)
        patience = time.monotonic() + START_WITHIN_S
        while (count := engine.worker_count()) < workers:
            if time.monotonic() > patience:
                raise RuntimeError(f"{count} of {workers} workers after {START_WITHIN_S:g} s")
            time.sleep(0.01)
        slots = workers * self.setup.threads
        engine.gather(engine.map(tasks.nap, range(slots), [0.2] * slots))
        engine.gather(engine.map(tasks.increment, range(100)))
        self._before = {role: processes.cpu_seconds(engine.pids(role)) for role in engine.ROLES}
        self._start = time.perf_counter()
        return engine

    def begin_cold(self) -> Engine:
        """Starts the clock, then a cluster, for which nothing waits."""
        self._start = time.perf_counter()
        self.engine = self._load()
        self.engine.start(self.setup.workers, self.setup.threads, Kind.SHORT_TASKS)
        return self.engine

    def elapsed(self) -> float:
        """Seconds on the clock."""
        return time.perf_counter() - self._start

    def sleep_until(self, seconds: float) -> None:
        """By the clock."""
        time.sleep(max(0.0, seconds - self.elapsed()))

    def used(self) -> dict[str, Any]:
        """What each role has used, now that the clock has stopped."""
        used: dict[str, Any] = {}
        for role in self.engine.ROLES if self.engine else ():
            pids = self.engine.pids(role)
            before = self._before.get(role, {})
            now = processes.cpu_seconds(pids)
            used[f"rss_mb_{role}"] = processes.peak_rss_mib(pids)
            used[f"cpu_s_{role}"] = sum(now[pid] - before.get(pid, 0.0) for pid in now)
        return used | {"load1": self._load1}


def outcome(ok: bool, seconds: float, ideal_s: float | None = None, tasks: int = 0) -> dict:
    """What came of a workload."""
    fields: dict[str, Any] = {"ok": ok, "seconds": seconds}
    if ideal_s is not None:
        fields |= {"ideal_s": ideal_s, "overhead_ms": (seconds - ideal_s) * 1e3}
    if tasks:
        fields["us_per_task"] = seconds * 1e6 / tasks
    return fields


def is_right(values: list[Any] | None, expected: list[Any]) -> bool:
    """Of an engine without values we know that all tasks have ended well: else it raises."""
    return values is None or values == expected


class Watch(threading.Thread):
    """When workers join, as the client sees it; those that are there joined at 0."""

    _LOOK_EVERY_S = 0.02

    def __init__(self, bench: Bench, engine: Engine) -> None:
        super().__init__(daemon=True)
        self._bench, self._engine = bench, engine
        self._stopped = threading.Event()
        self._joined_s = [0.0] * engine.worker_count()
        self.start()

    def run(self) -> None:
        while not self._stopped.wait(self._LOOK_EVERY_S):
            new = self._engine.worker_count() - len(self._joined_s)
            self._joined_s += [self._bench.elapsed()] * new

    def joined_s(self) -> list[float]:
        self._stopped.set()
        self.join()
        return self._joined_s


def square16(bench: Bench) -> dict:
    engine, setup = bench.begin(), bench.setup
    values = engine.gather(engine.map(tasks.square, [float(i) for i in range(setup.n)]))
    seconds = bench.elapsed()
    ok = is_right(values, [float(i * i) for i in range(setup.n)])
    return outcome(ok, seconds, float(math.ceil(setup.n / (setup.workers * setup.threads))))


def noop(bench: Bench) -> dict:
    engine, n = bench.begin(Kind.SHORT_TASKS), bench.setup.n
    handles = engine.map(tasks.identity, range(n))
    engine.flush()
    submit_s = bench.elapsed()
    values = engine.gather(handles)
    seconds = bench.elapsed()
    fields = outcome(is_right(values, list(range(n))), seconds, tasks=n)
    return fields | {"submit_s": submit_s, "tasks_per_s": n / seconds}


def tree(bench: Bench) -> dict:
    engine, n = bench.begin(Kind.SHORT_TASKS), bench.setup.n
    level = [engine.submit(tasks.identity, i) for i in range(n)]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [engine.submit(tasks.add, *pair) if len(pair) > 1 else pair[0] for pair in pairs]
    engine.flush()
    submit_s = bench.elapsed()
    values = engine.gather(level)
    fields = outcome(is_right(values, [n * (n - 1) // 2]), bench.elapsed(), tasks=2 * n - 1)
    return fields | {"submit_s": submit_s}


def merge(bench: Bench) -> dict:
    engine, n = bench.begin(Kind.SHORT_TASKS), bench.setup.n
    sources = engine.map(tasks.increment, range(n))
    values = engine.gather([engine.submit_on_all(tasks.add_all, sources)])
    return outcome(is_right(values, [n * (n + 1) // 2]), bench.elapsed(), tasks=n + 1)


def chain(bench: Bench) -> dict:
    engine, n = bench.begin(Kind.SHORT_TASKS), bench.setup.n
    last = engine.submit(tasks.increment, 0)
    for _ in range(1, n):
        last = engine.submit(tasks.increment, last)
    values = engine.gather([last])
    return outcome(is_right(values, [n]), bench.elapsed(), tasks=n)


def latency(bench: Bench) -> dict:
    warm_up = 100
    engine, n = bench.begin(Kind.SHORT_TASKS), bench.setup.n
    times_s, ok = [], True
    for i in range(warm_up + n):
        start = bench.elapsed()
        ok &= is_right(engine.gather([engine.submit(tasks.identity, i)]), [i])
        times_s.append(bench.elapsed() - start)
    times_s = sorted(times_s[warm_up:])
    at = {percent: times_s[(n - 1) * percent // 100] * 1e6 for percent in (50, 99, 100)}
    fields = outcome(ok, sum(times_s), tasks=n)
    return fields | {"p50_us": at[50], "p99_us": at[99], "max_us": at[100]}


def transfer(bench: Bench) -> dict:
    from . import arrays

    engine, n = bench.begin(Kind.LARGE_DATA), bench.setup.n
    gigabytes = n * 8 / 1e9
    ok, times_s = True, {"local": [], "remote": [], "gather": [], "scatter": []}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        times_s[name].append(time.perf_counter() - start)
        return result

    def result_on(worker: int, function: Callable, handle: Any) -> Any:
        return engine.gather([engine.submit(function, handle, worker=worker)])[0]

    for repetition in range(5):
        value = float(repetition)
        array = engine.submit(arrays.filled, n, value, worker=0)
        engine.wait(array)
        for worker, name in enumerate(("local", "remote")):
            found = timed(name, lambda on=worker, of=array: result_on(on, arrays.total, of))
            ok &= found == value * n
        values = timed("gather", lambda of=array: engine.gather([of]))[0]
        ok &= len(values) == n and bool((values == value).all())
        del values, array
        another = arrays.filled(n, value)
        ok &= n == timed(
            "scatter", lambda of=another: result_on(0, arrays.length, engine.put(of, 0))
        )
    seconds = bench.elapsed()
    median_s = {name: statistics.median(times) for name, times in times_s.items()}
    return outcome(ok, seconds) | {
        "local_sum_s": median_s["local"],
        "remote_sum_s": median_s["remote"],
        "transfer_GBps": gigabytes / median_s["remote"],
        "transfer_net_GBps": gigabytes / (median_s["remote"] - median_s["local"]),
        "gather_GBps": gigabytes / median_s["gather"],
        "scatter_GBps": gigabytes / median_s["scatter"],
    }


def uneven(bench: Bench) -> dict:
    setup = bench.setup
    is_late = setup.variant == "late"
    engine = bench.begin(workers=1 if is_late else None)
    lengths_s = ideals.uneven_lengths_s(setup.n, setup.total)
    handles = engine.map(tasks.nap, range(setup.n), lengths_s)
    engine.flush()
    joined_s = [0.0] * setup.workers
    if is_late:
        watch = Watch(bench, engine)
        engine.add_workers(setup.workers - 1)
        values = engine.gather(handles)
        seconds = bench.elapsed()
        joined_s = watch.joined_s()
    else:
        values = engine.gather(handles)
        seconds = bench.elapsed()
    ideal_s = ideals.divisible_s(setup.total, ideals.slots(joined_s, setup.threads))
    fields = outcome(is_right(values, list(range(setup.n))), seconds, ideal_s)
    return fields | {"joined_s": joined_s}


def sleep(bench: Bench) -> dict:
    engine, setup = bench.begin(), bench.setup
    nap_s = setup.nap_ms / 1e3
    values = engine.gather(engine.map(tasks.nap, range(setup.n), [nap_s] * setup.n))
    seconds = bench.elapsed()
    ideal_s = math.ceil(setup.n / (setup.workers * setup.threads)) * nap_s
    fields = outcome(is_right(values, list(range(setup.n))), seconds, ideal_s, setup.n)
    return fields | {"nap_ms": setup.nap_ms}


def rsds(bench: Bench) -> dict:
    setup = bench.setup
    graph = graphs.load(setup.graph)
    sinks, sleeps_s = graph.sinks(), sum(graph.naps_s)
    values = graph.fold(lambda task, inputs: tasks.node(task, 0.0, inputs))
    nodes = [((task, graph.naps_s[task]), inputs) for task, inputs in enumerate(graph.inputs)]
    engine = bench.begin(Kind.ORDINARY if sleeps_s else Kind.SHORT_TASKS)
    handles = engine.submit_graph(tasks.node, nodes, sinks)
    engine.flush()
    submit_s = bench.elapsed()
    found = engine.gather(handles)
    seconds = bench.elapsed()
    ideal_s = sleeps_s / (setup.workers * setup.threads) if sleeps_s else None
    ok = is_right(found, [values[sink] for sink in sinks])
    return outcome(ok, seconds, ideal_s, len(nodes)) | {
        "graph": setup.graph, "tasks": len(nodes), "edges": graph.edges(), "submit_s": submit_s,
    }  # fmt: skip


def spin(bench: Bench) -> dict:
    raise NotApplicable("its tasks are Python or programs, which compute at another speed")


def kill(bench: Bench) -> dict:
    killed, task_s = 2, 0.05
    engine, setup = bench.begin(Kind.LOSSES), bench.setup
    work_s = setup.n * task_s
    half_s = work_s / (setup.workers * setup.threads) / 2

    def kill_half_way() -> None:
        bench.sleep_until(half_s)
        engine.kill_workers(range(setup.workers - killed, setup.workers))

    handles = engine.map(tasks.nap, range(setup.n), [task_s] * setup.n)
    engine.flush()
    killer = threading.Thread(target=kill_half_way, daemon=True)
    killer.start()
    values = engine.gather(handles)
    seconds = bench.elapsed()
    killer.join()
    rest_s = work_s / 2 / ((setup.workers - killed) * setup.threads) + task_s
    fields = outcome(is_right(values, list(range(setup.n))), seconds, half_s + rest_s)
    return fields | {"killed_s": half_s}


def join(bench: Bench) -> dict:
    launch_at_s, task_s = 2.0, 1.0
    engine, setup = bench.begin(), bench.setup
    handles = engine.map(tasks.nap, range(setup.n), [task_s] * setup.n)
    engine.flush()
    watch = Watch(bench, engine)

    def launch() -> None:
        bench.sleep_until(launch_at_s)
        engine.add_workers(setup.workers)

    launcher = threading.Thread(target=launch, daemon=True)
    launcher.start()
    values = engine.gather(handles)
    seconds = bench.elapsed()
    launcher.join()
    joined_s = watch.joined_s()

    def ideal_s(joined_s: list[float]) -> float:
        return ideals.list_s(setup.n, task_s, ideals.slots(joined_s, setup.threads))

    fields = outcome(is_right(values, list(range(setup.n))), seconds, ideal_s(joined_s))
    at_once = [at for at in (0.0, launch_at_s) for _ in range(setup.workers)]
    return fields | {"ideal_instant_s": ideal_s(at_once), "joined_s": joined_s}


def startup(bench: Bench) -> dict:
    engine = bench.begin_cold()
    values = engine.gather([engine.submit(tasks.increment, 1)])
    return outcome(is_right(values, [2]), bench.elapsed())


@dataclass(frozen=True)
class Workload:
    """A workload, and what it runs on unless told otherwise."""

    run: Callable[[Bench], dict]
    setup: Setup
    variants: tuple[str, ...] = ()


def _workload(
    run: Callable[[Bench], dict], workers: int, threads: int, n: int, *variants: str
) -> Workload:
    variant = variants[0] if variants else None
    return Workload(run, Setup(n, workers, threads, variant), variants)


# Where a new workload is entered.
WORKLOADS = {
    "square16": _workload(square16, 2, 4, 16),
    "noop": _workload(noop, 1, 2, 1_000_000),
    "tree": _workload(tree, 1, 2, 1 << 13),
    "merge": _workload(merge, 1, 2, 10_000),
    "chain": _workload(chain, 1, 2, 1000),
    "latency": _workload(latency, 1, 1, 1000),
    "spin": _workload(spin, 1, 2, 20_000),
    "uneven": _workload(uneven, 4, 1, 2000, "spread", "late"),
    "kill": _workload(kill, 4, 1, 400),
    "join": _workload(join, 2, 4, 64),
    "transfer": _workload(transfer, 2, 1, 1 << 25),
    "startup": _workload(startup, 1, 1, 1),
    "sleep": _workload(sleep, 63, 24, 20_000),
    "rsds": _workload(rsds, 1, 24, 1),
}
