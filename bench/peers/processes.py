"""OS processes: their families, what they have used, and how to leave none behind.

Linux only, standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def adopt_orphans() -> None:
    """Daemons that children start stay below this process, where `end_descendants` finds them."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def descendants(pid: int) -> list[int]:
    """The living children of a process, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))) and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(name))
    found = list(children.get(pid, []))
    for one in found:  # grows meanwhile
        found.extend(children.get(one, []))
    return found


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    return [pid, *descendants(pid)]


def name(pid: int) -> str:
    """What the kernel calls it."""
    return _read(f"/proc/{pid}/comm").strip()


def end_descendants(grace_s: float = 0.0) -> None:
    """SIGTERM, and SIGKILL after the grace time, for everything below this process."""
    deadline = time.monotonic() + grace_s
    kill(descendants(os.getpid()), signal.SIGTERM)
    while left := descendants(os.getpid()):
        if time.monotonic() >= deadline:
            kill(left, signal.SIGKILL)
        _reap()
        time.sleep(0.01)
    _reap()


def kill(pids: Iterable[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Sends a signal to those that still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def peak_rss_mib(pids: Iterable[int]) -> int:
    """The sum of peak resident memory. Shared pages count in each."""
    total = 0
    for pid in pids:
        for line in _read(f"/proc/{pid}/status").splitlines():
            if line.startswith("VmHWM:"):
                total += -(-int(line.split()[1]) // 1024)
    return total


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """User and system time of each that lives."""
    used = {}
    for pid in pids:
        if fields := _stat(pid):
            used[pid] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
    return used


def load1() -> float:
    """The machine's load over the last minute."""
    return os.getloadavg()[0]


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may hold anything but ends with the last parenthesis."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
