"""One workload on another engine; prints one JSON line, as rdask-bench does.

Engines, workers and client are processes of their own on this machine, over loopback. All slots
have run something before the clock starts, which stops when the last result is in the client's
memory. What an engine can't do is a line, too: its status is "not applicable", with the reason.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from . import processes
from .engine import Engine, NotApplicable
from .workloads import USUAL, WORKLOADS, Bench, Setup, Workload


def dask() -> Engine:
    from .on_dask import Dask

    return Dask()


def ray() -> Engine:
    from .on_ray import Ray

    return Ray()


def hyperqueue() -> Engine:
    from .on_hyperqueue import HyperQueue

    return HyperQueue()


ENGINES: dict[str, Callable[[], Engine]] = {"dask": dask, "hyperqueue": hyperqueue, "ray": ray}


def main() -> int:
    arguments = parser().parse_args()
    name = arguments.workload
    workload = WORKLOADS[name]
    asked = {field: value for field in ("n", "workers", "threads", "variant", *USUAL)
             if (value := getattr(arguments, field)) is not None}  # fmt: skip
    setup = replace(workload.setup, **asked)
    if arguments.variant and arguments.variant not in workload.variants:
        known = ", ".join(workload.variants) or "none"
        parser().error(f"--variant {arguments.variant}: {name} has {known}")
    line: dict = {"peer": arguments.peer, "workload": name} | described(setup)
    # Engines and their children print what they like; standard output is for the line.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes.adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as folder:
        # For all that engines write, and for their children.
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            line |= run(workload, Bench(setup, ENGINES[arguments.peer]))
        except Exception:
            for log in Path(folder).glob("*.log"):
                print(
                    f"--- {log.name}:",
                    *log.read_text().splitlines()[-40:],
                    sep="\n",
                    file=sys.stderr,
                )
            raise
        finally:
            logging.disable()  # clients miss their servers
            processes.end_descendants()
    print(json.dumps(line), file=output, flush=True)
    return 0 if line.get("ok", True) else 1


def run(workload: Workload, bench: Bench) -> dict:
    try:
        outcome = workload.run(bench)
    except NotApplicable as error:
        return {"status": "not applicable", "reason": str(error)}
    return outcome | bench.used() | {"version": bench.engine.version()}


def described(setup: Setup) -> dict:
    variant = {"variant": setup.variant} if setup.variant else {}
    size = {"workers": setup.workers, "threads": setup.threads, "local": False, "n": setup.n}
    others = {name: getattr(setup, name) for name, usual in USUAL.items()
              if getattr(setup, name) != usual}  # fmt: skip
    return variant | size | others


def parser() -> argparse.ArgumentParser:
    lines = [
        f"  {name:<9} {one.setup.workers}x{one.setup.threads}; {one.setup.n:<9}"
        f" {' or '.join(f'--variant {variant}' for variant in one.variants)}".rstrip()
        for name, one in WORKLOADS.items()
    ]
    parser = argparse.ArgumentParser(
        prog="bench/peers/run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Workloads, workers x slots and n; more in rdask-bench --help:\n" + "\n".join(lines),
    )
    parser.add_argument("--peer", required=True, choices=ENGINES)
    parser.add_argument("--workload", required=True, choices=WORKLOADS)
    parser.add_argument("--n", type=positive, help="how many tasks (leaves, numbers)")
    parser.add_argument("--workers", type=positive, help="how many workers")
    parser.add_argument("--threads", type=positive, help="how many slots each worker has")
    parser.add_argument("--variant", help="which variant, if there are some; default: the first")
    parser.add_argument("--total", type=float, help="seconds of sleep of `uneven` together")
    parser.add_argument("--graph", help="which graph of `rsds`; rdask-bench --help lists them")
    parser.add_argument("--nap-ms", type=float, help="how long a task of `sleep` sleeps")
    return parser


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def exit_without_hooks() -> NoReturn:
    """Those of clients would look for servers that have ended."""
    try:
        status = main()
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 2
    except KeyboardInterrupt:
        status = 130
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    exit_without_hooks()
