"""OPT as a plugin of the engine."""
