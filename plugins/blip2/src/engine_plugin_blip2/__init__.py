"""BLIP-2 as a plugin of the engine."""
