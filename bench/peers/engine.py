"""What a workload needs of an engine.

Files go to the temporary folder, which is for this run alone; processes need not be ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Protocol


class NotApplicable(Exception):
    """The engine has nothing that the workload is about; the message says what."""


class Kind(Enum):
    """What a workload is like, for settings that documentation advises."""

    ORDINARY = 0
    SHORT_TASKS = 1
    LARGE_DATA = 2
    LOSSES = 3


class Engine(Protocol):
    """A scheduler, workers of so many slots, and this process as their client.

    A handle is whatever the engine calls a result that may not be there yet.
    """

    # The processes of each role, for their memory and time.
    ROLES = ("scheduler", "worker", "client")

    def version(self) -> str: ...

    def start(self, workers: int, threads: int, kind: Kind) -> None:
        """Starts everything and connects, but doesn't wait for the workers."""

    def add_workers(self, workers: int) -> None:
        """Launches more, and waits for nothing."""

    def worker_count(self) -> int:
        """How many are registered now; may be called by another thread."""

    def submit(self, function: Callable, *arguments: Any, worker: int | None = None) -> Any:
        """One task, on the worker of this number if given. Handles among arguments are values."""

    def submit_on_all(self, function: Callable, handles: list[Any]) -> Any:
        """One task that takes the list of their values."""

    def map(self, function: Callable, *columns: Iterable[Any]) -> list[Any]:
        """A task for each row of the columns."""

    def submit_graph(
        self, function: Callable, nodes: list[tuple[tuple, list[int]]], wanted: list[int]
    ) -> list[Any]:
        """A task for each node: its own arguments, then the list of the values of earlier nodes.
        Handles of those that are wanted."""

    def flush(self) -> None:
        """Sends what was submitted or mapped, if that waits for anything; `gather` does, too."""

    def wait(self, handle: Any) -> None:
        """Until it is ready, without fetching it."""

    def put(self, value: Any, worker: int) -> Any:
        """Places a value on this worker."""

    def gather(self, handles: list[Any]) -> list[Any] | None:
        """All values; None if they are done, but the engine has no values."""

    def kill_workers(self, numbers: range) -> None:
        """SIGKILL for every process of these workers."""

    def pids(self, role: str) -> list[int]:
        """The living processes of a role."""
