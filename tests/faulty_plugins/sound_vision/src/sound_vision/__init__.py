"""A sound model that sees pictures in tiles, from which faulty ones are made."""
