"""Jamba as a plugin of the engine."""
