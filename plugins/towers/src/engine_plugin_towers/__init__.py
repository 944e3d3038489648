"""Vision towers as a plugin of the engine: components that other models are built with."""
