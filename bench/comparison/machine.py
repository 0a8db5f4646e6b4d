"""What was compared, where, and how busy that was: the heading of the table."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

from .runs import ROOT
from .table import NAMES


def describe(command: str) -> dict:
    """Kept with the results."""
    return {
        "command": command,
        "commit": commit(),
        "started": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
    }


def commit() -> str:
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def heading(machine: dict, lines: list[dict], peers: list[str], folder: Path) -> str:
    """Title, machine, versions, and a warning where others were at work on it. The folder is the
    page's."""

    def link(path: str) -> str:
        return f"[{path}]({Path(os.path.relpath(ROOT / path, folder.resolve())).as_posix()})"

    loads = sorted(line["load1"] for line in lines)
    # Of rdask the commit is known.
    versions = {
        line["peer"]: line["version"] for line in lines if "version" in line and "commit" not in line
    }
    known = [f"{NAMES[peer]} {versions[peer]}" for peer in peers if peer in versions]
    times = max(Counter((line["case"], line["n"], line["peer"]) for line in lines).values())
    often = f"up to {times} runs" if times > 1 else "one run"
    text = [
        "# rdask and its peers",
        f"`{machine['command']}`, {machine['started']}, rdask {machine['commit']}, {often} "
        "each, in turns.",
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, Linux "
        f"{machine['kernel']}; load average from {loads[0]:.1f} to {loads[-1]:.1f} at the start "
        f"of runs.",
    ]
    if known:
        text.append(f"{', '.join(known)}.")
    text.append(
        f"What is fair and what isn't: {link('bench/README.md')}. Where the time goes: "
        f"{link('docs/performance.md')}. `bench/compare --from` makes this page anew from "
        "[compare.jsonl](compare.jsonl)."
    )
    text.append("![How many times better rdask is than others](compare.svg)")
    busy = loads[len(loads) // 2]
    if busy > machine["cores"]:
        text.append(
            f"**The machine was busy with other work: its load was {busy:.1f} on "
            f"{machine['cores']} cores half the time.** Ratios tell something, figures do not."
        )
    return "\n\n".join(text)
