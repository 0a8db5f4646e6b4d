"""Tests of the comparison, without any engine: python3 -m unittest comparison.tests, in bench/."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from comparison import chart, command, machine, table
from comparison.cases import CASES, Metric, chosen
from comparison.runs import ROOT, Runner, read
from peers import graphs, ideals, processes, tasks
from peers.__main__ import described
from peers.workloads import WORKLOADS, Setup

MACHINE = {"command": "bench/compare", "commit": "abc", "started": "today", "cpu": "one",
           "cores": 2, "memory_gib": 4, "kernel": "6"}  # fmt: skip


def line(peer: str, case: str, status: str = "done", **fields: float | str) -> dict:
    of_case = next(one for one in CASES if one.name == case)
    head = {"peer": peer, "case": case, "workload": of_case.workload, "n": of_case.n}
    return head | {"load1": 0.5, "status": status} | fields


LINES = [
    line("rdask", "noop", us_per_task=2.0),
    line("dask", "noop", us_per_task=1000.0),
    line("rdask", "noop", us_per_task=1.0),
    line("dask", "noop", us_per_task=500.0),
    line("rdask", "noop", us_per_task=4.0),
    line("dask", "noop", status="timed out", reason="more than 3 s"),
    line("rdask", "transfer", transfer_GBps=1.0, gather_GBps=1.0, scatter_GBps=1.0),
    line("dask", "transfer", transfer_GBps=2.0, gather_GBps=0.5, scatter_GBps=1.0),
    line("rdask", "kill", seconds=8.0),
    line("dask", "kill", status="not applicable", reason="it <can't>"),
]
PEERS = ["rdask", "dask"]


class Table(unittest.TestCase):
    rows = {(row.case, row.metric.field): row for row in table.rows(LINES, PEERS)}

    def test_medians_spreads_and_ratios(self) -> None:
        noop = self.rows["noop", "us_per_task"]
        self.assertEqual((noop.cells["rdask"].median, noop.ratio("dask")), (2.0, 375.0))
        self.assertEqual(noop.cells["rdask"].spread(), " (1 to 4)")

    def test_more_is_better_for_rates(self) -> None:
        transfer = self.rows["transfer", "transfer_GBps"]
        self.assertEqual((transfer.best(), transfer.ratio("dask")), ("dask", 0.5))
        self.assertEqual(self.rows["transfer", "gather_GBps"].best(), "rdask")

    def test_what_went_wrong_stays_in(self) -> None:
        page = table.markdown("# Heading", list(self.rows.values()), PEERS)
        self.assertIn("750 (500 to 1,000), x375, timed out [1]", page)
        self.assertIn("**2** (1 to 4)", page)
        self.assertIn("| not applicable [2] |", page)
        self.assertIn("2. Dask: it <can't>.", page)
        self.assertIn("| **2**, x0.5 |", page)

    def test_the_heading_warns_of_a_busy_machine(self) -> None:
        self.assertNotIn("busy", machine.heading(MACHINE, LINES, PEERS, ROOT))
        loaded = [one | {"load1": 7.5} for one in LINES]
        self.assertIn("its load was 7.5 on 2 cores", machine.heading(MACHINE, loaded, PEERS, ROOT))

    def test_the_heading_links_to_what_is_there(self) -> None:
        for folder in (ROOT / "docs/figures", ROOT / "target/compare", ROOT / "docs"):
            page = machine.heading(MACHINE, LINES, PEERS, folder)
            links = re.findall(r"\]\(([^)]*\.md)\)", page)
            self.assertEqual(len(links), 2)
            for link in links:
                self.assertTrue(os.path.exists(os.path.normpath(folder / link)), link)

    def test_a_page_can_be_made_anew_from_what_is_beside_it(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            first, again = Path(folder, "first"), Path(folder, "again")
            for output, records in ((first, [MACHINE, *LINES]), (again, None)):
                output.mkdir()
                if records is None:
                    records = [json.loads(one) for one in (first / "compare.jsonl").open()]
                with contextlib.redirect_stderr(io.StringIO()):
                    self.assertEqual(command.write(records, output), 0)
            for name in ("compare.md", "compare.svg", "compare.jsonl"):
                self.assertEqual((first / name).read_text(), (again / name).read_text())

    def test_digits(self) -> None:
        shown = [table.short(x) for x in (0.01234, 1.0, 99.95, 123.4, 12345.6, -0.5)]
        self.assertEqual(shown, ["0.0123", "1", "100", "123", "12,346", "-0.5"])


class Chart(unittest.TestCase):
    def test_bars_lie_on_the_right_side_of_the_line(self) -> None:
        rows = list(table.rows(LINES, PEERS))
        text = chart.svg(rows, PEERS)
        root = ElementTree.fromstring(text)  # well formed, with whatever was in reasons
        space = "{http://www.w3.org/2000/svg}"
        line_x = float(root.find(f"{space}line[@class='rdask']").get("x1"))
        drawn = [one for one in root.iter(f"{space}rect") if float(one.get("y")) >= chart.TOP]
        starts = [float(one.get("x")) for one in drawn]
        widths = [float(one.get("width")) for one in drawn]
        # noop 375, transfer 0.5, gather 2, scatter 1; kill has none.
        self.assertEqual(len(drawn), 4)
        self.assertAlmostEqual(starts[0], line_x, delta=0.11)
        self.assertAlmostEqual(starts[1] + widths[1], line_x, delta=0.11)
        self.assertGreater(widths[0], 5 * widths[2])


class Runs(unittest.TestCase):
    def test_what_a_run_says(self) -> None:
        log = Path("it.log")
        self.assertEqual(read('noise\n{"ok": true}\n', 0, log)["status"], "done")
        self.assertEqual(read('{"ok": false}', 1, log)["status"], "wrong")
        self.assertEqual(read('{"status": "skipped"}', 0, log)["status"], "skipped")
        self.assertEqual(read("", 1, log)["reason"], "exit status 1, see it.log")

    def test_skipped_peers_are_not_run(self) -> None:
        runner = Runner(Path("/nowhere"), 1.0, Path("/nowhere/log"), {"dask": "no network"})
        found = runner.run("dask", CASES[0])
        self.assertEqual((found["status"], found["reason"]), ("skipped", "no network"))

    def test_chosen_cases(self) -> None:
        self.assertEqual(len(chosen([], True)), len(CASES))
        self.assertEqual([case.n for case in chosen(["noop:7"], False)], [7])
        self.assertEqual(len(chosen(["uneven"], True)), 2)
        with self.assertRaisesRegex(ValueError, "no workload nope; there are noop, tree"):
            chosen(["nope"], False)

    def test_no_flag_is_given_twice(self) -> None:
        for is_quick in (False, True):
            for case in chosen([], is_quick):
                flags = [one for one in case.arguments() if one.startswith("--")]
                self.assertEqual(len(flags), len(set(flags)), case.name)

    def test_every_case_is_known_to_the_peers(self) -> None:
        for case in CASES:
            self.assertIn(case.workload, WORKLOADS)

    def test_figures_of_lines(self) -> None:
        metric = Metric("", "seconds", "", divisor="ideal_s")
        self.assertEqual(metric.of({"seconds": 3.0, "ideal_s": 2.0}), 1.5)
        self.assertIsNone(metric.of({"seconds": 3.0}))

    def test_a_line_tells_what_was_run(self) -> None:
        usual = described(Setup(7, 1, 2, None))
        self.assertEqual(usual, {"workers": 1, "threads": 2, "local": False, "n": 7})
        self.assertEqual(described(Setup(7, 1, 2, "late", 8.0))["total"], 8.0)

    def test_no_process_is_left(self) -> None:
        """A daemon that ignores SIGTERM and whose parent has gone is found, too."""
        program = (
            "import os, subprocess, sys; sys.path.insert(0, sys.argv[1])\n"
            "from peers import processes\n"
            "processes.adopt_orphans()\n"
            "daemon = \"sh -c 'trap : TERM; echo $$; while :; do sleep 1; done' &\"\n"
            "parent = subprocess.Popen(daemon, shell=True, stdout=subprocess.PIPE)\n"
            "pid = int(parent.stdout.readline()); parent.wait()\n"
            "assert pid in processes.descendants(os.getpid())\n"
            "processes.end_descendants(grace_s=0.2)\n"
            "assert not processes.descendants(os.getpid())\n"
            "print(pid)"
        )
        bench = str(Path(__file__).resolve().parents[1])
        said = subprocess.run(
            [sys.executable, "-c", program, bench], stdout=subprocess.PIPE, check=True, timeout=60
        ).stdout
        self.assertFalse(os.path.exists(f"/proc/{int(said)}"))


class Ideals(unittest.TestCase):
    def test_divisible_work_ends_everywhere_at_once(self) -> None:
        self.assertEqual(ideals.divisible_s(20.0, [0.0] * 4), 5.0)
        self.assertEqual(ideals.divisible_s(10.0, [0.0, 2.0]), 6.0)
        self.assertEqual(ideals.divisible_s(10.0, [0.0, 12.0]), 10.0)

    def test_whole_tasks_go_to_whoever_is_free_first(self) -> None:
        self.assertEqual(ideals.list_s(64, 1.0, ideals.slots([0.0, 0.0, 2.0, 2.0], 4)), 5.0)
        self.assertEqual(ideals.list_s(64, 1.0, ideals.slots([0.0, 0.0, 2.25, 2.25], 4)), 5.25)

    def test_lengths_are_as_defined(self) -> None:
        lengths = ideals.uneven_lengths_s(2000, 20.0)
        self.assertEqual([round(one * 1e6) for one in lengths[:2]], [7763, 7443])
        self.assertAlmostEqual(sum(lengths), 20.0)
        self.assertTrue(0.0025 < min(lengths) < 0.0026 and 0.495 < max(lengths) < 0.505)


class Graphs(unittest.TestCase):
    def test_they_are_what_rdask_bench_prints(self) -> None:
        graph = graphs.parse('{"inputs": [[], [], [0, 1], [2]], "naps_us": [[1, 500]]}')
        self.assertEqual((graph.edges(), graph.sinks()), (3, [3]))
        self.assertEqual(graph.naps_s, [0.0, 0.0005, 0.0, 0.0])
        self.assertEqual(graph.fold(lambda task, inputs: task + sum(inputs)), [0, 1, 3, 6])

    def test_a_value_tells_of_all_that_it_depends_on(self) -> None:
        one, other = tasks.node(0, 0.0, []), tasks.node(1, 0.0, [])
        self.assertNotEqual(tasks.node(2, 0.0, [one, other]), tasks.node(2, 0.0, [other, one]))
        self.assertNotEqual(tasks.node(2, 0.0, [one]), tasks.node(3, 0.0, [one]))


class Processes(unittest.TestCase):
    def test_a_process_and_its_use(self) -> None:
        me = os.getpid()
        self.assertGreater(processes.peak_rss_mib([me]), 1)
        while processes.cpu_seconds([me])[me] == 0.0:
            sum(range(100_000))
        self.assertEqual(processes.cpu_seconds([2**22 + 1]), {})
        child = subprocess.Popen(["sleep", "60"])
        self.assertIn(child.pid, processes.descendants(me))
        processes.kill([child.pid])
        child.wait()
        deadline = time.monotonic() + 10
        while child.pid in processes.descendants(me):
            self.assertLess(time.monotonic(), deadline)


if __name__ == "__main__":
    unittest.main()
