"""The command line of `bench/compare`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from peers import processes

from . import chart, machine, table
from .cases import CASES, PEERS, Case, chosen
from .runs import ROOT, Runner, Unusable

DESCRIPTION = """\
Runs rdask and its peers in turns, so that noise hits all the same, and writes a table and a chart.

Every run is a line of JSON in target/compare, written as soon as there is one; Ctrl-C ends all
processes and still writes what there is. A peer that can't be installed is skipped, with the
reason."""

EXAMPLES = """\
examples:
  bench/compare --quick                                    # everything, small, in some minutes
  bench/compare --workloads noop,latency --peers dask,ray --times 5
  bench/compare --workloads noop:1000000 --peers rayon
  bench/compare --from target/compare/20261123-101500.jsonl --output docs/figures
  bench/compare --from docs/figures/compare.jsonl --output docs/figures      # drawn anew"""


def main() -> int:
    arguments = parse()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    output = arguments.output or target / "compare"
    output.mkdir(parents=True, exist_ok=True)
    if arguments.source:
        return write([json.loads(line) for line in arguments.source.open()], output)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    kept = target / "compare" / f"{stamp}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    # As Ctrl-C: what runs is ended, what there is gets written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes.adopt_orphans()
    records = [machine.describe(shlex.join(["bench/compare", *sys.argv[1:]]))]
    status = 0
    try:
        log = kept.with_suffix(".log")
        runner = Runner.prepare(arguments.peers, target, arguments.limit, log)
        with kept.open("w") as file:
            keep(records[0], file)
            status = run_all(runner, arguments, records, file)
    except Unusable as error:
        print(f"bench/compare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        status = 130
        print("\ninterrupted", file=sys.stderr)
    finally:
        processes.end_descendants(grace_s=5.0)
    return max(status, write(records, output)) if len(records) > 1 else status


def run_all(
    runner: Runner, arguments: argparse.Namespace, records: list[dict], file: TextIO
) -> int:
    """All cases in turns; whoever goes first changes. 1 if a result was wrong or a run failed."""
    cases, peers = arguments.cases, arguments.peers
    total = len(cases) * len(peers) * arguments.times
    hopeless: dict[tuple[str, str], dict] = {}
    status = 0
    for nth in range(arguments.times):
        for place, case in enumerate(cases):
            first = (nth + place) % len(peers)
            for peer in peers[first:] + peers[:first]:
                number = len(records)
                if (case.name, peer) in hopeless:
                    line = hopeless[case.name, peer]  # once is enough
                else:
                    line = runner.run(peer, case)
                records.append(line)
                keep(line, file)
                print(f"[{number}/{total}] {case.name} on {peer}: {told(line, case)}", flush=True)
                if line["status"] in ("not applicable", "skipped", "timed out"):
                    hopeless[case.name, peer] = line
                if line["status"] in ("wrong", "failed"):
                    status = 1
    return status


def keep(line: dict, file: TextIO) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()


def told(line: dict, case: Case) -> str:
    """For whoever watches."""
    if line["status"] != "done":
        return f"{line['status']}: {line.get('reason', 'see the log')}"
    metric = case.metrics[0]
    return f"{table.short(metric.of(line) or 0.0)} {metric.unit}, {line['wall_s']:.1f} s in all"


def write(records: list[dict], output: Path) -> int:
    """The table and the chart of all lines; the first record is the machine."""
    about, lines = records[0], records[1:]
    found = {line["peer"] for line in lines}
    peers = [peer for peer in ("rdask", *PEERS) if peer in found]
    if "rdask" not in found:
        print("bench/compare: no run of rdask yet, so nothing to compare with", file=sys.stderr)
        return 1
    rows = list(table.rows(lines, peers))
    page = table.markdown(machine.heading(about, lines, peers, output), rows, peers)
    (output / "compare.md").write_text(page)
    with (output / "compare.jsonl").open("w") as file:
        for record in records:
            keep(record, file)
    (output / "compare.svg").write_text(chart.svg(rows, peers))
    print(f"written: {output}/compare.md, compare.svg, compare.jsonl", file=sys.stderr)
    return 0


def parse() -> argparse.Namespace:
    names = ", ".join(dict.fromkeys(case.workload for case in CASES))
    parser = argparse.ArgumentParser(
        prog="bench/compare",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed = {"type": lambda text: text.split(","), "metavar": "A,B"}
    parser.add_argument(
        "--workloads", default=[], **listed, help=f"NAME or NAME:N of {names}; default: all"
    )
    parser.add_argument(
        "--peers", default=list(PEERS), **listed, help=f"of {', '.join(PEERS)}; default: all"
    )
    parser.add_argument("--times", type=int, help="how often; default: 5, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="smaller workloads")
    parser.add_argument(
        "--limit", type=float, metavar="SECONDS", help="of a run; default: 300, with --quick 60"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="for the table, the chart and what they are"
        " made from; default: target/compare",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="runs nothing: reads kept lines"
    )
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.peers) - set(PEERS) - {"rdask"}):
        parser.error(f"no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    try:
        arguments.cases = chosen(arguments.workloads, arguments.quick)
    except ValueError as error:
        parser.error(str(error))
    arguments.peers = ["rdask", *(peer for peer in PEERS if peer in arguments.peers)]
    arguments.times = arguments.times or (1 if arguments.quick else 5)
    arguments.limit = arguments.limit or (60.0 if arguments.quick else 300.0)
    return arguments
