"""A HyperQueue server, and a worker for each line on standard input: how many cores it has.

Run as a process of its own: `python -m peers.hyperqueue_cluster FOLDER`.
"""

from __future__ import annotations

import sys

from hyperqueue import LocalCluster
from hyperqueue.cluster import WorkerConfig


def main() -> None:
    with LocalCluster(sys.argv[1]) as cluster:
        print("server", flush=True)
        for line in sys.stdin:
            cluster.start_worker(WorkerConfig(cores=int(line)))
            print("worker", flush=True)


if __name__ == "__main__":
    main()
