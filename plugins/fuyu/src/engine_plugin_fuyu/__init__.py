"""Fuyu and Persimmon as a plugin of the engine."""
