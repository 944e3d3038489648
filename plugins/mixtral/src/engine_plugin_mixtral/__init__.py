"""Mixtral as a plugin of the engine."""
