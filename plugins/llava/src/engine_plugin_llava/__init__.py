"""LLaVA as a plugin of the engine."""
