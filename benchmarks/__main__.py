"""`python -m benchmarks`: JSON lines on standard output (and in benchmarks/results), a table at the end."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from .cases import CASES
from .machine import sample
from .models import model_folder
from .systems import SYSTEMS, Worker

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="the first is compared with each other one")
    parser.add_argument("--repeat", type=int, default=3, help="alternating runs of each system")
    parser.add_argument("--models", type=Path, default=HERE / "models", help="where checkpoints are kept")
    args = parser.parse_args()
    systems, lines = tuple(args.systems.split(",")), []
    wanted = args.cases.split(",")
    for model, own in dict.fromkeys((CASES[c].model, CASES[c].systems) for c in wanted):
        folder = model_folder(args.models, model)
        workers = {s: Worker(s, folder) for s in own or systems}
        for case in (c for c in wanted if (CASES[c].model, CASES[c].systems) == (model, own)):
            line = measure(case, workers, args.repeat)
            lines.append(line)
            print(json.dumps(line), flush=True)
        for worker in workers.values():
            worker.close()
    (HERE / "results").mkdir(exist_ok=True)
    out = HERE / "results" / time.strftime("%Y%m%d-%H%M%S.jsonl")
    out.write_text("".join(json.dumps(x) + "\n" for x in lines))
    table(lines)


def measure(case: str, workers: dict[str, Worker], repeat: int) -> dict[str, object]:
    """Alternate the systems, the machine's own speed sampled before each round; medians of the rounds."""
    spec = CASES[case]
    for worker in workers.values():
        worker.run(case, 999)
    runs: dict[str, list[float]] = {s: [] for s in workers}
    parts: dict[str, dict[str, list[float]]] = {s: {} for s in workers}
    shares: list[float] = []
    machines = []
    for i in range(repeat):
        machines.append(sample())
        for name, worker in workers.items():
            figures = worker.run(case, i)
            runs[name].append(figures[spec.figure])
            for part, value in figures.items():
                if part != spec.figure:
                    parts[name].setdefault(part, []).append(value)
            if name == next(iter(workers)):
                share = spec.bound(figures, machines[-1])
                shares += [share] if share is not None else []
    first, *others = workers
    ratio = {
        o: statistics.median((a / b if spec.better == "higher" else b / a) for a, b in zip(runs[first], runs[o]))
        for o in others
    }
    return {
        "case": case,
        "model": spec.model,
        "figure": spec.figure,
        "better": spec.better,
        "median": {s: round(statistics.median(r), 3) for s, r in runs.items()},
        "times_better_than": {o: round(r, 2) for o, r in ratio.items()},
        "share_of_machine": round(statistics.median(shares), 3) if shares else None,
        "parts": {s: {name: round(statistics.median(v), 3) for name, v in p.items()} for s, p in parts.items()},
        "machine": machines,
        "runs": {s: [round(x, 3) for x in r] for s, r in runs.items()},
    }


def table(lines: list[dict[str, object]]) -> None:
    """The same, for people."""
    systems = list(dict.fromkeys(s for x in lines for s in x["median"]))  # type: ignore[attr-defined]
    print("\n| case | figure | " + " | ".join(systems) + " | times better | share of the machine |", file=sys.stderr)
    print("|---|---|" + "---|" * (len(systems) + 2), file=sys.stderr)
    for x in lines:
        median, ratio, share = x["median"], x["times_better_than"], x["share_of_machine"]
        assert isinstance(median, dict)
        assert isinstance(ratio, dict)
        cells = [str(median.get(s, "")) for s in systems]
        better = ", ".join(f"{r} × {o}" for o, r in ratio.items())
        shown = f"{share:.0%}" if isinstance(share, float) else ""
        print(
            f"| {x['case']} | {x['figure']} ({x['better']}) | {' | '.join(cells)} | {better} | {shown} |",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
