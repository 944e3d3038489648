"""A mapping of bounded size in bytes: what was used longest ago goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteLRU(Generic[Value]):
    """Keeps values by key while their sizes add up to no more than a bound. Safe to use from several threads.

    Args:
        max_bytes: The bound; 0 keeps nothing.
        size_of: A value's size in bytes.
        keep: Makes of a value what is kept of it; None: itself.
    """

    def __init__(
        self, max_bytes: int, size_of: Callable[[Value], int], keep: Callable[[Value], Value] | None = None
    ) -> None:
        self.max_bytes, self._size_of, self._keep = max_bytes, size_of, keep
        self._values: OrderedDict[bytes, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.num_bytes = self.hits = self.misses = 0

    def __bool__(self) -> bool:
        return True  # an empty cache is not a missing one

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes) -> Value | None:
        """The value of a key, which counts as used; None when it is not, or no longer, there."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._values.move_to_end(key)
            return found[0]

    def peek(self, key: bytes) -> Value | None:
        """The value of a key, for whoever has just put it there: it counts as neither used nor missed."""
        with self._lock:
            found = self._values.get(key)
        return None if found is None else found[0]

    def put(self, key: bytes, value: Value) -> None:
        """Keep a value, at the cost of those used longest ago; one that is larger than the bound is not kept."""
        size = self._size_of(value)
        if size > self.max_bytes:
            return
        if self._keep is not None:
            value = self._keep(value)
        with self._lock:
            if key in self._values:
                self.num_bytes -= self._values.pop(key)[1]
            self._values[key] = (value, size)
            self.num_bytes += size
            while self.num_bytes > self.max_bytes:
                _, (_, gone) = self._values.popitem(last=False)
                self.num_bytes -= gone

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self.num_bytes = 0
