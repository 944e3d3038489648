"""numba's cache on disk, written by one process at a time.

numba looks under which number the code for some types can lie, notes it, and puts the code there. Of two processes that do
so at once for different types, both take the same number, and from then on one's code is run with the other's arguments.

Where nothing can be written, as in an image whose user owns no folder, kernels are compiled at each start.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator
from typing import Any

from numba.core.caching import FunctionCache

try:
    import fcntl
except ImportError:  # where processes cannot lock a folder
    fcntl = None  # type: ignore[assignment]


logger = logging.getLogger(__name__)


def cached(form: Any) -> Any:
    """Have a function of numba's look for its code on disk, and leave it there."""
    try:
        form._cache = DiskCache(form.py_func)
    except RuntimeError:  # numba found no folder that can be written
        _tell_that_nothing_is_kept("no folder for them can be written")
    return form


class DiskCache(FunctionCache):  # type: ignore[misc]  # numba has no types
    """The code of one function."""

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for a signature, if that can be."""
        try:
            with _alone_in(self.cache_path):
                super().save_overload(sig, data)
        except OSError as e:  # a full disk, say
            _tell_that_nothing_is_kept(str(e))


@functools.cache
def _tell_that_nothing_is_kept(why: str) -> None:
    logger.warning(
        "compiled kernels cannot be kept on disk (%s): each start compiles them anew, up to a minute; "
        "set NUMBA_CACHE_DIR to a folder that can be written",
        why,
    )


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Hold a folder, which others wait for; where that cannot be, go on as they do."""
    if fcntl is None:
        yield
        return
    os.makedirs(folder, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
