"""A sound model whose layers keep states, from which faulty ones are made."""
