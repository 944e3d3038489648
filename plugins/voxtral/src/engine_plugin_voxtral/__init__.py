"""Voxtral for the engine. `plugin.py` is what the engine reads first."""
