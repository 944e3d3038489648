"""How long `engine plugins list` takes with many plugins installed: builds fake ones in a temporary folder.

    python benchmarks/plugins_list.py [COUNT]

Prints the median wall seconds of whole processes, and those of a Python that does nothing, for comparison.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sdk.testing.fake_dist import plugin_source, write_distribution  # noqa: E402

REPEATS = 15


def build(folder: Path, count: int) -> None:
    """Write this many plugins, each of one architecture and one model_type."""
    for number in range(count):
        package, architecture = f"engine_plugin_bench{number}", f"Bench{number}ForCausalLM"
        write_distribution(
            folder,
            f"engine-plugin-bench{number}",
            entry_points={
                "engine.v1": {architecture: f"{package}.plugin"},
                "engine.v1.model_types": {f"bench{number}": f"{package}.plugin"},
            },
            files={f"{package}/plugin.py": plugin_source(architecture, model_types=(f"bench{number}",))},
            requires=["engine-plugin-sdk>=1.0,<2", "transformers>=5.16"],
        )


def median_seconds(command: list[str], environment: dict[str, str]) -> float:
    """Median wall time of a command; the first run, which fills the caches, is not counted."""
    seconds = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), count)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, str(ROOT)])}
        listing = median_seconds([sys.executable, "-P", "-m", "core.cli", "plugins", "list"], environment)
        nothing = median_seconds([sys.executable, "-P", "-c", ""], environment)
    print(f"engine plugins list, {count} plugins: {listing:.3f} s (Python alone: {nothing:.3f} s)")


if __name__ == "__main__":
    main()
