"""A sound text model, from which faulty ones are made."""
