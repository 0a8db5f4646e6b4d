"""Single runs, each a command that prints one JSON line, and no process left of any."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from peers import processes

from .cases import Case

ROOT = Path(__file__).resolve().parents[2]


class Unusable(Exception):
    """Something without which nothing can be compared."""


@dataclass
class Runner:
    """Whoever is skipped is in `skipped`, with the reason."""

    target: Path
    limit_s: float
    log: Path
    skipped: dict[str, str]

    @classmethod
    def prepare(cls, peers: list[str], target: Path, limit_s: float, log: Path) -> Runner:
        """Builds rdask-bench, and the environment of the peers that need one."""
        build = ["cargo", "build", "--release", "--package", "rdask-bench"]
        if subprocess.run(build, cwd=ROOT, check=False).returncode != 0:
            raise Unusable("rdask-bench doesn't build")
        skipped = {}
        if foreign := [peer for peer in peers if peer not in ("rdask", "rayon")]:
            prepare = [str(ROOT / "bench/peers/run"), "--prepare"]
            said = subprocess.run(prepare, stdout=subprocess.PIPE, text=True, check=True).stdout
            if said:
                skipped = dict.fromkeys(foreign, json.loads(said)["reason"])
        return cls(target, limit_s, log, skipped)

    def command(self, peer: str, case: Case) -> list[str]:
        if peer in ("rdask", "rayon"):
            program = str(self.target / "release/rdask-bench")
        else:
            program = str(ROOT / "bench/peers/run")
        return [program, "--peer", peer, *case.arguments()]

    def run(self, peer: str, case: Case) -> dict:
        """The line of a run, with a status: done, wrong, failed, timed out, or what it says."""
        line = {"peer": peer, "case": case.name, "workload": case.workload, "n": case.n}
        line["load1"] = processes.load1()
        if peer in self.skipped:
            return line | {"status": "skipped", "reason": self.skipped[peer]}
        start = time.monotonic()
        with open(self.log, "a") as log:
            print("$", *self.command(peer, case), file=log, flush=True)
            process = subprocess.Popen(
                self.command(peer, case), stdout=subprocess.PIPE, stderr=log, text=True
            )
            try:
                said, _ = process.communicate(timeout=self.limit_s)
            except subprocess.TimeoutExpired:
                said = None
            finally:
                # Also what a failed run has left; nothing may disturb the next one.
                processes.end_descendants(grace_s=5.0)
                process.wait()
        line["wall_s"] = time.monotonic() - start
        if said is None:
            return line | {"status": "timed out", "reason": f"more than {self.limit_s:g} s"}
        return line | read(said, process.returncode, self.log)


def read(said: str, returncode: int, log: Path) -> dict:
    """What a run has said about itself."""
    try:
        line = json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"status": "failed", "reason": f"exit status {returncode}, see {log.name}"}
    if "status" not in line:
        line["status"] = "done" if line["ok"] and returncode == 0 else "wrong"
    return line
