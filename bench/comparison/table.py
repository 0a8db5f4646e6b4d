"""The table: medians, spreads and ratios, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from .cases import CASES, Metric

NAMES = {
    "rdask": "rdask",
    "dask": "Dask",
    "hyperqueue": "HyperQueue",
    "ray": "Ray",
    "rayon": "rayon, in one process",
}


@dataclass(frozen=True)
class Cell:
    """The figures of a peer in a row, or why there are none."""

    figures: tuple[float, ...]
    status: str = "done"
    reason: str = ""

    @property
    def median(self) -> float | None:
        return statistics.median(self.figures) if self.figures else None

    def spread(self) -> str:
        if len(self.figures) < 2:
            return ""
        return f" ({short(min(self.figures))} to {short(max(self.figures))})"


@dataclass(frozen=True)
class Row:
    """A metric of a case, and what each peer has made of it."""

    case: str
    n: int
    metric: Metric
    cells: dict[str, Cell]

    def ratio(self, peer: str) -> float | None:
        """How many times better rdask is; below 1 it is worse."""
        ours, theirs = self.cells["rdask"].median, self.cells[peer].median
        if ours is None or theirs is None or ours <= 0 or theirs <= 0:
            return None
        return ours / theirs if self.metric.is_rate else theirs / ours

    def best(self) -> str | None:
        """The best of the engines; rayon is none."""
        medians = {
            peer: cell.median
            for peer, cell in self.cells.items()
            if peer != "rayon" and cell.median is not None
        }
        if not medians:
            return None
        return (max if self.metric.is_rate else min)(medians, key=lambda peer: medians[peer])


def rows(lines: list[dict], peers: list[str]) -> Iterator[Row]:
    """In the order of the cases; without those of which there is no line."""
    for case in CASES:
        of_case = [line for line in lines if line["case"] == case.name]
        for n in dict.fromkeys(line["n"] for line in of_case):
            of_n = [line for line in of_case if line["n"] == n]
            for metric in case.metrics:
                cells = {peer: cell(of_n, peer, metric) for peer in peers}
                yield Row(case.name, n, metric, cells)


def cell(lines: list[dict], peer: str, metric: Metric) -> Cell:
    of_peer = [line for line in lines if line["peer"] == peer]
    figures = [metric.of(line) for line in of_peer if line["status"] == "done"]
    other = next((line for line in of_peer if line["status"] != "done"), None)
    status = other["status"] if other else "done" if figures else "not run"
    reason = other.get("reason", "") if other else ""
    return Cell(tuple(one for one in figures if one is not None), status, reason)


def short(figure: float) -> str:
    """Three digits, without powers of ten."""
    if abs(figure) >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.3g}"


def markdown(heading: str, table_rows: list[Row], peers: list[str]) -> str:
    """The whole page."""
    notes: dict[str, int] = {}
    lines = [
        "| workload | what | unit | " + " | ".join(NAMES[peer] for peer in peers) + " |",
        "|---" * (3 + len(peers)) + "|",
    ]
    for row in table_rows:
        cells = [text(row, peer, notes) for peer in peers]
        name = f"{row.case}, n = {row.n:,}" if row.n > 1 else row.case
        lines.append(f"| {name} | {row.metric.label} | {row.metric.unit} | {' | '.join(cells)} |")
    explanation = (
        "Medians, and from least to greatest of all runs. x: how many times better rdask is than "
        "that; below\n1, rdask loses. Bold: the best engine of the row."
    )
    notes_text = [f"{number}. {note}" for note, number in notes.items()]
    return "\n\n".join(
        part for part in (heading, explanation, "\n".join(lines), "\n".join(notes_text)) if part
    ) + "\n"  # fmt: skip


def text(row: Row, peer: str, notes: dict[str, int]) -> str:
    found = row.cells[peer]
    note = ""
    if found.reason:
        number = notes.setdefault(f"{NAMES[peer]}: {found.reason}.", len(notes) + 1)
        note = f" [{number}]"
    if found.median is None:
        return found.status + note
    figure = short(found.median)
    if row.best() == peer:
        figure = f"**{figure}**"
    ratio = row.ratio(peer)
    times = f", x{short(ratio)}" if ratio is not None and peer != "rdask" else ""
    status = "" if found.status == "done" else f", {found.status}{note}"
    return f"{figure}{found.spread()}{times}{status}"
