"""Speed beside transformers, in the same run, and as a share of what the machine gives: `python -m benchmarks`."""
