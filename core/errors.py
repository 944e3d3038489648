"""The error tree, as users of `core` import it. It lives in the SDK so that plugins raise the same classes."""

from sdk.errors import *  # noqa: F403


def shown(value: object, most: int = 80) -> str:
    """A value that somebody gave, for a message: short, whatever it is."""
    try:
        return repr(value)[:most]
    except ValueError:  # Python writes no number of more than some thousand digits
        return f"a {type(value).__name__} of very many digits"
