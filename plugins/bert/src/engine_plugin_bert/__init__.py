"""BERT as a plugin of the engine."""
