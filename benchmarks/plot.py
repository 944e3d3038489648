"""Draws what `python -m benchmarks` measured: `python -m benchmarks.plot OUT.svg RESULTS.jsonl…`.

A group of bars for each case, a bar for each system, as long as it is fast; of a case in several files the last counts.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

UNITS = {
    "out_tok_s": "tokens/s",
    "ms_per_token": "ms a token",
    "ttft_ms": "ms",
    "seconds": "s",
    "ms_step": "ms a step",
    "req_s": "requests/s",
    "start_s": "s",
}
WHAT = {
    "a": "a: 64 requests, 128 + 128 tokens",
    "b": "b: one sequence decoded",
    "b-int8": "b-int8: weights in 8 bits",
    "c": "c: first token after 2,048",
    "d-shared": "d: 32 requests, 1,024 tokens shared",
    "d-different": "d: 32 requests, nothing shared",
    "e32": "e: step of a tiny model, 32 sequences",
    "e256": "e: step of a tiny model, 256 sequences",
    "f-different": "f: 16 pictures",
    "f-same": "f: one picture 16 times",
    "g1": "g: one clip of 30 s",
    "g8": "g: 8 clips of 30 s",
    "h": "h: start to first token",
}
COLOURS = ("#2563eb", "#94a3b8", "#f59e0b", "#10b981", "#ec4899", "#8b5cf6")
BAR, GAP, LABELS, WIDTH, VALUES = 15, 14, 270, 420, 150


def bars(lines: list[dict[str, Any]], systems: list[str]) -> tuple[list[str], int]:
    """The drawing's parts, and how high it is."""
    parts, y = [], 48
    for line in lines:
        median, up = line["median"], line["better"] == "higher"
        best = (max if up else min)(median.values())
        parts.append(f'<text x="{LABELS - 10}" y="{y + 12}" text-anchor="end">{escape(WHAT[line["case"]])}</text>')
        for name in systems:
            if name not in median:
                continue
            value = median[name]
            length = max(1.0, WIDTH * (value / best if up else best / value))
            colour = COLOURS[systems.index(name) % len(COLOURS)]
            parts.append(f'<rect x="{LABELS}" y="{y}" width="{length:.0f}" height="{BAR - 2}" rx="2" fill="{colour}"/>')
            text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            parts.append(f'<text x="{LABELS + length + 6:.0f}" y="{y + 11}">{text} {UNITS[line["figure"]]}</text>')
            y += BAR
        y += GAP
    return parts, y


def draw(lines: list[dict[str, Any]]) -> str:
    """The whole picture."""
    systems = list(dict.fromkeys(s for line in lines for s in line["median"]))
    parts, height = bars(lines, systems)
    legend, x = [], LABELS
    for i, name in enumerate(systems):
        legend.append(f'<rect x="{x}" y="14" width="12" height="12" rx="2" fill="{COLOURS[i % len(COLOURS)]}"/>')
        legend.append(f'<text x="{x + 17}" y="24">{escape(name)}</text>')
        x += 34 + 7 * len(name)
    width = LABELS + WIDTH + VALUES
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    style = "<style>text{font:12px system-ui,sans-serif;fill:#334155}</style>"
    ground = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, style, ground, *legend, *parts, "</svg>", ""])


def main() -> None:
    """The command."""
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    out, *sources = map(Path, sys.argv[1:])
    found = [json.loads(line) for source in sources for line in source.read_text().splitlines()]
    by_case = {line["case"]: line for line in found}
    out.write_text(draw([by_case[case] for case in WHAT if case in by_case]))


if __name__ == "__main__":
    main()
