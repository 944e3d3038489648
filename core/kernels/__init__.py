"""The operations the engine stands on: one file an operation, the choice of backend in one place (`bind.py` beside them)."""
