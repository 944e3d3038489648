"""LFM2 as a plugin of the engine."""
