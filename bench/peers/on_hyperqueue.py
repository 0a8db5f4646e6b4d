"""HyperQueue, from its package on PyPI: server and workers in one process, and a client.

Tasks are programs, and there are no values: what a workload computes is not checked, only that
all tasks have ended with success. The package has no `hq`; what starts workers in it makes them
threads of the process that has the server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from . import loopback, processes, tasks
from .engine import Kind, NotApplicable

# What stands for the functions. No shell and no interpreter: they take longer to start.
COMMANDS: dict[Callable, Callable[..., list[str]]] = {
    tasks.identity: lambda *_: ["true"],
    tasks.increment: lambda *_: ["true"],
    tasks.add: lambda *_: ["true"],
    tasks.add_all: lambda *_: ["true"],
    tasks.node: lambda _, seconds, *__: ["sleep", f"{seconds:.6f}"] if seconds else ["true"],
    tasks.nap: lambda _, seconds: ["sleep", f"{seconds:.6f}"],
    tasks.square: lambda *_: ["sleep", "1"],
}


@dataclass(eq=False)
class Task:
    """A task of the next job; after that of a job."""

    command: list[str]
    inputs: list[Task]
    job: Any = None
    in_job: Any = field(default=None, repr=False)


class _NotYet(Exception):
    pass


class HyperQueue:
    """See `engine.Engine`. A job is all that was submitted since the last one."""

    ROLES = ("scheduler", "client")

    def version(self) -> str:
        import hyperqueue

        return hyperqueue.get_version().removeprefix("v")

    def start(self, workers: int, threads: int, kind: Kind) -> None:
        if kind is Kind.LARGE_DATA:
            raise NotApplicable("it moves no data, tasks share files")
        if kind is Kind.LOSSES:
            raise NotApplicable("workers of its PyPI package are threads of the server's process")
        try:
            loopback.enter()  # it listens on all interfaces, and no setting changes that
        except OSError as error:
            raise NotApplicable(f"can't shut it in a network namespace: {error}") from error
        self._cluster = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.hyperqueue_cluster", tempfile.gettempdir()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, bufsize=1,
        )  # fmt: skip
        self._threads = threads
        self._new: list[Task] = []
        self._workers = 0
        self.add_workers(workers)
        from hyperqueue import Client

        while (line := self._cluster.stdout.readline()) and line != "server\n":
            pass  # it prints a table of itself
        threading.Thread(target=self._count_workers, daemon=True).start()
        self._client = Client(tempfile.gettempdir())

    def _count_workers(self) -> None:
        for line in self._cluster.stdout:
            self._workers += line == "worker\n"

    def add_workers(self, workers: int) -> None:
        self._cluster.stdin.write(f"{self._threads}\n" * workers)

    def worker_count(self) -> int:
        return self._workers

    def submit(self, function: Callable, *arguments: Any, worker: int | None = None) -> Task:
        inputs = [one for one in arguments if isinstance(one, Task)]
        self._new.append(Task(COMMANDS[function](*arguments), inputs))
        return self._new[-1]

    def submit_on_all(self, function: Callable, handles: list[Task]) -> Task:
        return self.submit(function, *handles)

    def submit_graph(
        self, function: Callable, nodes: list[tuple[tuple, list[int]]], wanted: list[int]
    ) -> list[Task]:
        handles: list[Task] = []
        for own, inputs in nodes:
            handles.append(self.submit(function, *own, *(handles[one] for one in inputs)))
        return [handles[one] for one in wanted]

    def map(self, function: Callable, *columns: Iterable[Any]) -> list[Task]:
        # They wait for `flush`: tasks can only depend on others of their own job.
        return [self.submit(function, *row) for row in zip(*columns, strict=True)]

    def flush(self) -> None:
        if not self._new:
            return
        from hyperqueue import Job

        job = Job()
        for task in self._new:
            inputs = [one.in_job for one in task.inputs]
            # Nothing is written to files, which is its fastest.
            task.in_job = job.program(task.command, deps=inputs, stdout=None, stderr=None)
        submitted = self._client.submit(job)
        for task in self._new:
            task.job = submitted
        self._new.clear()

    def wait(self, handle: Task) -> None:
        self.gather([handle])

    def put(self, value: Any, worker: int) -> Any:
        raise NotImplementedError

    def gather(self, handles: list[Task]) -> None:
        self.flush()
        for job in {id(one.job): one.job for one in handles}.values():
            self._wait_for_job(job)

    def _wait_for_job(self, job: Any) -> None:
        # `Client.wait_for_jobs` asks once a second. Raising in its callback lets us ask again when
        # we like: after a hundredth of the time that has gone, which costs it little.
        def look(jobs: dict[int, dict]) -> None:
            if not all(one["completed"] for one in jobs.values()):
                raise _NotYet

        start = time.perf_counter()
        while True:
            try:
                failed = self._client.connection.wait_for_jobs((job.id,), look)
                break
            except _NotYet:
                time.sleep(max(0.001, (time.perf_counter() - start) / 100))
        if failed:
            raise RuntimeError(f"tasks have failed: {self._client.get_failed_tasks(job)}")

    def kill_workers(self, numbers: range) -> None:
        raise NotImplementedError

    def pids(self, role: str) -> list[int]:
        return processes.family(self._cluster.pid) if role == "scheduler" else [os.getpid()]
