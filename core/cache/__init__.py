"""What the engine remembers of sequences: pages of keys and values."""
