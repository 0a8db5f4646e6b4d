"""Ray: a head node that is also worker 0, and a node by `ray start` for every other worker."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import loopback, processes
from .engine import Kind, NotApplicable

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # No token, as nobody else is in its network. It would be written to the home folder.
    "RAY_AUTH_MODE": "disabled",
}
# Of shared memory, for each node: arrays of `transfer` fit several times.
STORE_BYTES = 2 << 30


class Ray:
    """See `engine.Engine`."""

    ROLES = ("scheduler", "worker", "client")

    def version(self) -> str:
        import ray

        return ray.__version__

    def start(self, workers: int, threads: int, kind: Kind) -> None:
        try:
            loopback.enter()  # some of its servers listen on all interfaces
        except OSError as error:
            raise NotApplicable(f"can't shut it in a network namespace: {error}") from error
        os.environ |= SETTINGS
        self._threads = threads
        self._remote: dict[Callable, Any] = {}
        self._nodes: list[subprocess.Popen] = []
        import ray

        # A head node with slots is what `ray.init` starts on one machine. Where data is to move
        # the client is apart: it would share the store of the worker on its node.
        self._has_head_slots = kind is not Kind.LARGE_DATA
        ray.init(
            num_cpus=threads if self._has_head_slots else 0,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _temp_dir=tempfile.gettempdir(),
        )
        self._ray = ray
        self.add_workers(workers - 1 if self._has_head_slots else workers)

    def add_workers(self, workers: int) -> None:
        address = self._ray.get_runtime_context().gcs_address
        for _ in range(workers):
            number = len(self._nodes) + int(self._has_head_slots)
            # Nodes of one machine that start at once would take the same sockets and ports.
            folder = Path(tempfile.gettempdir(), f"w{number}")
            command = [
                str(Path(sys.executable).parent / "ray"), "start", "--address", address, "--block",
                "--num-cpus", str(self._threads), "--resources", f'{{"w{number}": 1000}}',
                "--object-store-memory", str(STORE_BYTES), "--min-worker-port", "0",
                "--max-worker-port", "0", "--dashboard-agent-listen-port", "0",
                "--temp-dir", str(folder),
            ]  # fmt: skip
            with open(Path(tempfile.gettempdir(), "nodes.log"), "ab") as log:
                self._nodes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def worker_count(self) -> int:
        nodes = self._ray.nodes()
        return sum(1 for one in nodes if one["Alive"] and one["Resources"].get("CPU", 0) > 0)

    def submit(self, function: Callable, *arguments: Any, worker: int | None = None) -> Any:
        remote = self._remote.get(function) or self._remote.setdefault(
            function, self._ray.remote(function)
        )
        if worker is not None:
            remote = remote.options(resources={f"w{worker}": 1})
        return remote.remote(*arguments)

    def submit_on_all(self, function: Callable, handles: list[Any]) -> Any:
        # As arguments: a list of references, fetched by the task, takes longer.
        return self.submit(_gathering(function, 0), *handles)

    def map(self, function: Callable, *columns: Iterable[Any]) -> list[Any]:
        return [self.submit(function, *row) for row in zip(*columns, strict=True)]

    def submit_graph(
        self, function: Callable, nodes: list[tuple[tuple, list[int]]], wanted: list[int]
    ) -> list[Any]:
        handles: list[Any] = []
        for own, inputs in nodes:
            gathering = _gathering(function, len(own))
            handles.append(self.submit(gathering, *own, *(handles[one] for one in inputs)))
        return [handles[one] for one in wanted]

    def flush(self) -> None:
        pass

    def wait(self, handle: Any) -> None:
        self._ray.wait([handle], fetch_local=False)

    def put(self, value: Any, worker: int) -> Any:
        return self._ray.put(value)  # the task fetches it to where it runs

    def gather(self, handles: list[Any]) -> list[Any]:
        return self._ray.get(handles)

    def kill_workers(self, numbers: range) -> None:
        nodes = [self._nodes[number - int(self._has_head_slots)] for number in numbers]
        processes.kill([pid for node in nodes for pid in processes.family(node.pid)])

    def pids(self, role: str) -> list[int]:
        if role == "client":
            return [os.getpid()]
        nodes = [pid for node in self._nodes for pid in processes.family(node.pid)]
        # Below this process: the head's raylet with the processes of its slots, and the rest.
        head = [pid for pid in processes.descendants(os.getpid()) if pid not in nodes]
        raylets = [pid for pid in head if processes.name(pid) == "raylet"]
        slots = [pid for raylet in raylets for pid in processes.family(raylet)]
        if not self._has_head_slots:
            slots = []
        return [*nodes, *slots] if role == "worker" else [pid for pid in head if pid not in slots]


_GATHERING: dict[tuple[Callable, int], Callable] = {}


def _gathering(function: Callable, own: int) -> Callable:
    """The same function with arguments instead of a list, after so many of its own."""

    def gathered(*values: Any) -> Any:
        return function(*values[:own], list(values[own:]))

    return _GATHERING.setdefault((function, own), gathered)
