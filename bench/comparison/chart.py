"""The chart: how many times better rdask is, on a logarithmic axis, as SVG."""

from __future__ import annotations

import math
from html import escape

from .table import NAMES, Row, short

# Seen well on white and on black.
COLOURS = {"dask": "#e8762d", "hyperqueue": "#3f8fd2", "ray": "#2fa58a", "rayon": "#9a7fd1"}
LEFT, WIDTH, RIGHT = 280, 470, 110
BAR, GAP, TOP = 11, 12, 64
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .small { font-size: 10px; fill: #57606a; }
  .grid { stroke: #8c959f; stroke-opacity: 0.35; }
  .rdask { stroke: #d1242f; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #9198a1; }
  }
"""


def svg(rows: list[Row], peers: list[str]) -> str:
    """A bar for each peer in each row: to the right of the line rdask is better."""
    peers = [peer for peer in peers if peer != "rdask"]
    ratios = [ratio for row in rows for peer in peers if (ratio := row.ratio(peer)) is not None]
    low, high = decades(ratios)
    height = TOP + sum(height_of(peers) for _ in rows) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{height}"'
        f' viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" role="img">',
        "<title>How many times better rdask is than others</title>",
        f"<style>{STYLE}</style>",
        *legend(peers),
        *axis(low, high, height),
    ]
    top = TOP
    for row in rows:
        parts += bars(row, peers, top, low, high)
        top += height_of(peers)
    return "\n".join([*parts, "</svg>"]) + "\n"


def height_of(peers: list[str]) -> int:
    return len(peers) * BAR + GAP


def decades(ratios: list[float]) -> tuple[int, int]:
    """Whole powers of ten around all ratios, and around 1."""
    logs = [math.log10(ratio) for ratio in ratios] or [0.0]
    return min(-1, math.floor(min(logs))), max(1, math.ceil(max(logs)))


def x_of(ratio: float, low: int, high: int) -> float:
    return LEFT + WIDTH * (math.log10(ratio) - low) / (high - low)


def legend(peers: list[str]) -> list[str]:
    parts, x = [], LEFT
    for peer in peers:
        parts.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{COLOURS[peer]}"/>')
        parts.append(f'<text x="{x + 15}" y="17">{escape(NAMES[peer])}</text>')
        x += 40 + 7 * len(NAMES[peer])
    return parts


def axis(low: int, high: int, height: int) -> list[str]:
    parts = [
        f'<text class="small" x="{x_of(1, low, high) + 6:.1f}" y="36">rdask is better</text>',
        f'<text class="small" x="{x_of(1, low, high) - 6:.1f}" y="36" text-anchor="end">'
        "worse</text>",
    ]
    for power in range(low, high + 1):
        x = x_of(10.0**power, low, high)
        style = "rdask" if power == 0 else "grid"
        label = f"{10**power:,}" if power >= 0 else f"1/{10**-power:,}"
        parts.append(f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}" y1="56" y2="{height - 8}"/>')
        parts.append(f'<text class="small" x="{x:.1f}" y="51" text-anchor="middle">{label}</text>')
    return parts


def bars(row: Row, peers: list[str], top: int, low: int, high: int) -> list[str]:
    ours = row.cells["rdask"].median
    figure = row.cells["rdask"].status if ours is None else f"{short(ours)} {row.metric.unit}"
    middle = top + len(peers) * BAR / 2
    parts = [
        f'<text x="{LEFT - 40}" y="{middle - 1:.1f}" text-anchor="end">'
        f"{escape(row.metric.label)}</text>",
        f'<text class="small" x="{LEFT - 40}" y="{middle + 11:.1f}" text-anchor="end">'
        f"{escape(f'{row.case}: rdask {figure}')}</text>",
    ]
    for nth, peer in enumerate(peers):
        y = top + nth * BAR
        cell, ratio = row.cells[peer], row.ratio(peer)
        zero = x_of(1, low, high)
        if ratio is None:
            end, label = zero, cell.status if cell.median is None else short(cell.median)
        else:
            end, label = x_of(ratio, low, high), short(cell.median or 0.0)
            start, length = min(zero, end), max(1.0, abs(end - zero))
            parts.append(
                f'<rect x="{start:.1f}" y="{y}" width="{length:.1f}" height="{BAR - 2}"'
                f' fill="{COLOURS[peer]}"/>'
            )
        side = f'x="{end - 4:.1f}" text-anchor="end"' if end < zero else f'x="{end + 4:.1f}"'
        parts.append(f'<text class="small" {side} y="{y + BAR - 3}">{escape(label)}</text>')
    return parts
