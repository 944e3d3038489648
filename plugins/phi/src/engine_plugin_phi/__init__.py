"""Phi-3 and Phi-4 mini as a plugin of the engine."""
