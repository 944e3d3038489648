"""Qwen3 as a plugin of the engine."""
