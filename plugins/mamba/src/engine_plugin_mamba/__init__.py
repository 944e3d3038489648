"""Mamba and Mamba-2 as a plugin of the engine."""
