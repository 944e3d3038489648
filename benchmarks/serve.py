"""The process of one system with one model: `python -m benchmarks.serve SYSTEM FOLDER`, by the system's own interpreter.

Lines of JSON: it writes `"ready"`, then for each `[case, seed]` that it reads what it measured. See `benchmarks.worker`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .cases import CASES, Figures
from .systems import system


def main() -> None:
    """Answer until there is nothing left to read."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print where they like
    made = system(name)(folder)
    config = json.loads((folder / "config.json").read_text())
    vocab = int(config.get("vocab_size") or config["text_config"]["vocab_size"])
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        case, seed = json.loads(line)
        figures = CASES[case].measure(made, np.random.default_rng(seed), vocab)
        print(json.dumps({**figures, **memory(made)}), file=answers)


def memory(made: Any) -> Figures:
    """The most that this process held since it began; of a system that tells what for, also what is beyond that."""
    held = made.held() if hasattr(made, "held") else {}
    return {"peak_mib": _peak_mib(), **held} | ({"over_mib": _peak_mib() - sum(held.values())} if held else {})


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.is_file():  # a child's `ru_maxrss` begins with what its parent held
        return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith("VmHWM:")) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
