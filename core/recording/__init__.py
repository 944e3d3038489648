"""Steps that decode, recorded: what a model calls is noted, once for each number of sequences, and called again without it."""
