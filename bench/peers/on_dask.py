"""Dask: `dask scheduler`, `dask worker` with its nanny, and a client, over plain TCP."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import processes
from .engine import Kind

# distributed.yaml names these.
SETTINGS = {
    # The sampling profiler wakes every 10 ms; `worker.profile.enabled` turns it off.
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    # Memory management is off, as in the ULHPC tutorial (`--memory-limit 0`).
}
# "Scheduling policies" in Dask's documentation: tasks that are short against the round trip do
# better without queuing in the scheduler. Longer ones keep the default, with which late workers
# find work left.
SHORT_TASKS = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "inf"}


class Dask:
    """See `engine.Engine`."""

    ROLES = ("scheduler", "worker", "client")

    def version(self) -> str:
        import distributed

        return distributed.__version__

    def start(self, workers: int, threads: int, kind: Kind) -> None:
        self._threads = threads
        self._env = os.environ | SETTINGS | (SHORT_TASKS if kind is Kind.SHORT_TASKS else {})
        self._file = Path(tempfile.gettempdir(), "scheduler.json")
        self._workers: list[subprocess.Popen] = []
        # Ports 0: any that is free. Even without a dashboard there is an HTTP server.
        self._scheduler = self._launch(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-show",
            "--no-dashboard", "--dashboard-address", "127.0.0.1:0",
        )  # fmt: skip
        self.add_workers(workers)
        # Imported while they start.
        from distributed import Client

        # Values come straight from the workers, not through the scheduler.
        self._client = Client(scheduler_file=str(self._file), direct_to_workers=True)

    def _launch(self, role: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", role, "--scheduler-file", str(self._file)]
        with open(Path(tempfile.gettempdir(), f"{role}.log"), "ab") as log:
            return subprocess.Popen([*command, *arguments], env=self._env, stdout=log, stderr=log)

    def add_workers(self, workers: int) -> None:
        for _ in range(workers):
            name = f"w{len(self._workers)}"
            launched = self._launch(
                "worker", "--host", "127.0.0.1", "--name", name,
                "--nthreads", str(self._threads), "--memory-limit", "0",
                "--no-dashboard", "--dashboard-address", "127.0.0.1:0",
            )  # fmt: skip
            self._workers.append(launched)

    def worker_count(self) -> int:
        return len(self._client.nthreads())

    def submit(self, function: Callable, *arguments: Any, worker: int | None = None) -> Any:
        place = {} if worker is None else {"workers": [f"w{worker}"]}
        return self._client.submit(function, *arguments, pure=False, **place)

    def submit_on_all(self, function: Callable, handles: list[Any]) -> Any:
        return self.submit(function, handles)

    def map(self, function: Callable, *columns: Iterable[Any]) -> list[Any]:
        return self._client.map(function, *[list(column) for column in columns], pure=False)

    def submit_graph(
        self, function: Callable, nodes: list[tuple[tuple, list[int]]], wanted: list[int]
    ) -> list[Any]:
        # In one message, as its collections do it: single submits take twice the processor time.
        from dask.task_spec import List, Task, TaskRef

        run = uuid.uuid4().hex
        keys = [f"node-{run}-{number}" for number in range(len(nodes))]
        refs = [TaskRef(key) for key in keys]
        graph = {
            key: Task(key, function, *own, List(*(refs[one] for one in inputs)))
            for key, (own, inputs) in zip(keys, nodes, strict=True)
        }
        return self._client.get(graph, [keys[one] for one in wanted], sync=False)

    def flush(self) -> None:
        pass

    def wait(self, handle: Any) -> None:
        from distributed import wait

        wait(handle)

    def put(self, value: Any, worker: int) -> Any:
        return self._client.scatter(value, workers=[self._address(worker)], hash=False)

    def _address(self, worker: int) -> str:
        info = self._client.scheduler_info(n_workers=-1)["workers"]
        return next(address for address, one in info.items() if one["name"] == f"w{worker}")

    def gather(self, handles: list[Any]) -> list[Any]:
        return self._client.gather(handles)

    def kill_workers(self, numbers: range) -> None:
        workers = [self._workers[number] for number in numbers]
        processes.kill([pid for worker in workers for pid in processes.family(worker.pid)])

    def pids(self, role: str) -> list[int]:
        if role == "client":
            return [os.getpid()]
        parents = [self._scheduler] if role == "scheduler" else self._workers
        return [pid for parent in parents for pid in processes.family(parent.pid)]
