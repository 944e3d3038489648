"""The error tree, as users of `core` import it. It lives in the SDK so that plugins raise the same classes."""

from sdk.errors import *  # noqa: F403
