"""`python -m benchmarks`: JSON lines on standard output (and in benchmarks/results), a table at the end.

A peer that lives in an environment of its own is measured by that one's interpreter:

    python -m benchmarks --systems ours,transformers,openvino --peer-python openvino=/path/to/its/bin/python
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .cases import CASES, Case, Figures
from .machine import sample
from .models import model_folder
from .systems import SYSTEMS
from .worker import Worker, WorkerError, Workers

HERE = Path(__file__).parent
Start = Callable[[str], Worker]
"""A system's name → its process."""


@dataclass
class Rounds:
    """What was measured of one case: a list of figures for each system, and of the machine beside them."""

    case: str
    spec: Case
    of: dict[str, list[Figures]] = field(default_factory=dict)
    machine: list[dict[str, float]] = field(default_factory=list)
    cannot: dict[str, str] = field(default_factory=dict)

    def line(self) -> dict[str, object]:
        """Medians, and how many times better the first system is than each other, by the median of the rounds."""
        main = {name: [f[self.spec.figure] for f in rounds] for name, rounds in self.of.items()}
        first, *others = main
        up = self.spec.better == "higher"
        ratios = {o: [a / b if up else b / a for a, b in zip(main[first], main[o])] for o in others}
        shares = [self.spec.bound(f, m) for f, m in zip(self.of[first], self.machine)]
        known = [s for s in shares if s is not None]
        return {
            "case": self.case,
            "model": self.spec.model,
            "figure": self.spec.figure,
            "better": self.spec.better,
            "median": {name: round(statistics.median(runs), 3) for name, runs in main.items()},
            "times_better_than": {o: round(statistics.median(r), 2) for o, r in ratios.items()},
            "share_of_machine": round(statistics.median(known), 3) if known else None,
            "parts": {name: _medians(rounds, self.spec.figure) for name, rounds in self.of.items()},
            "cannot": self.cannot,
            "machine": self.machine,
            "runs": {name: [round(x, 3) for x in runs] for name, runs in main.items()},
        }


def _medians(rounds: Sequence[Figures], but: str) -> Figures:
    names = [name for name in rounds[0] if name != but]
    return {name: round(statistics.median(f.get(name, 0.0) for f in rounds), 3) for name in names}


def measure(case: str, systems: Sequence[str], start: Start, repeat: int) -> Rounds:
    """Alternate the systems, the machine's own speed sampled before each round. What cannot run the case is left out, and why."""
    rounds = Rounds(case, CASES[case])
    for name in systems:  # what is compiled and cached at first use is no part of it
        try:
            _once(case, name, start, 999)
            rounds.of[name] = []
        except WorkerError as e:
            if name == systems[0]:
                raise
            rounds.cannot[name] = str(e)
    for i in range(repeat):
        rounds.machine.append(sample())
        for name, found in rounds.of.items():
            found.append(_once(case, name, start, i))
    return rounds


def _once(case: str, name: str, start: Start, seed: int) -> Figures:
    worker = start(name)
    try:
        return worker.run(case, seed)
    finally:
        if CASES[case].fresh:
            worker.close()


def systems_of(spec: Case, asked: Sequence[str]) -> list[str]:
    """What is compared in a case."""
    if not spec.variant:
        return list(asked)
    return [*(v for v in (f"{s}-{spec.variant}" for s in asked) if v in SYSTEMS), asked[0]]


def run(
    cases: Sequence[str], asked: Sequence[str], pythons: dict[str, Path], models: Path, repeat: int
) -> list[Rounds]:
    """All cases; those of one model by the same processes."""
    found = []
    for model in dict.fromkeys(CASES[c].model for c in cases):
        with Workers(model_folder(models, model), pythons) as workers:
            for case in (c for c in cases if CASES[c].model == model):
                spec = CASES[case]
                start = workers.fresh if spec.fresh else workers.kept
                found.append(measure(case, systems_of(spec, asked), start, repeat))
                print(json.dumps(found[-1].line()), flush=True)
    return found


def table(lines: Sequence[dict[str, object]]) -> None:
    """The same, for people."""
    systems = list(dict.fromkeys(s for x in lines for s in x["median"]))  # type: ignore[attr-defined]
    print("\n| case | figure | " + " | ".join(systems) + " | times better | share of the machine |", file=sys.stderr)
    print("|---|---|" + "---|" * (len(systems) + 2), file=sys.stderr)
    for x in lines:
        median, ratio, share, cannot = x["median"], x["times_better_than"], x["share_of_machine"], x["cannot"]
        assert isinstance(median, dict)
        assert isinstance(ratio, dict)
        assert isinstance(cannot, dict)
        cells = [str(median.get(s, "")) for s in systems]
        better = ", ".join(f"{r} × {o}" for o, r in ratio.items())
        shown = f"{share:.0%}" if isinstance(share, float) else ""
        print(
            f"| {x['case']} | {x['figure']} ({x['better']}) | {' | '.join(cells)} | {better} | {shown} |",
            file=sys.stderr,
        )
        for name, why in cannot.items():
            print(f"{x['case']} without {name}: {why}", file=sys.stderr)
    for x in lines:
        parts = x["parts"]
        assert isinstance(parts, dict)
        for name, p in parts.items():
            if "over_mib" in p:
                held = (
                    f"{p['weights_mib']:.0f} of weights and {p['cache_mib']:.0f} of caches, {p['over_mib']:.0f} besides"
                )
                print(f"{x['case']}: {name} held {p['peak_mib']:.0f} MiB at most: {held}", file=sys.stderr)


def _peer(text: str) -> tuple[str, Path]:
    name, equals, python = text.partition("=")
    if not equals or name not in SYSTEMS or not Path(python).is_file():
        raise argparse.ArgumentTypeError(f"{text}: it takes NAME=PYTHON, of {', '.join(SYSTEMS)} and an interpreter")
    return name, Path(python).absolute()


def _of(known: dict[str, object]) -> Callable[[str], list[str]]:
    def split(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name}: one of {', '.join(known)}")
        return names

    return split


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=_of({**CASES}), default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument(
        "--systems",
        type=_of({**SYSTEMS}),
        default=["ours", "transformers"],
        help=f"of {', '.join(SYSTEMS)}; the first is compared with each other one",
    )
    parser.add_argument("--peer-python", type=_peer, action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--repeat", type=int, default=3, help="alternating runs of each system")
    parser.add_argument("--models", type=Path, default=HERE / "models", help="where checkpoints are kept")
    args = parser.parse_args()
    rounds = run(args.cases, args.systems, dict(args.peer_python), args.models, args.repeat)
    lines = [x.line() for x in rounds]
    (HERE / "results").mkdir(exist_ok=True)
    out = HERE / "results" / time.strftime("%Y%m%d-%H%M%S.jsonl")
    out.write_text("".join(json.dumps(x) + "\n" for x in lines))
    table(lines)


if __name__ == "__main__":
    main()
