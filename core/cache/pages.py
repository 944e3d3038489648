"""The pool of K/V pages: who holds which, by reference count. Knows numbers only, no tensors."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import EngineDeadError


class PagePool:
    """Hands out pages `1 … num_pages`; page 0 is never given out, so that padding may point at it.

    Args:
        num_pages: How many there are to give.
        page_size: Tokens in a page.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages, self.page_size = num_pages, page_size
        self._free = list(range(num_pages, 0, -1))
        self._references = [0] * (num_pages + 1)

    @property
    def num_free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def pages_for(self, num_tokens: int) -> int:
        """How many pages so many tokens take."""
        return -(-num_tokens // self.page_size)

    def take(self, count: int) -> list[int] | None:
        """Take `count` pages with one reference each; None, and nothing taken, when there are not as many."""
        if count > len(self._free):
            return None
        if count == 0:
            return []
        pages = self._free[-count:][::-1]
        del self._free[-count:]
        for page in pages:
            self._references[page] = 1
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """Add a reference to pages that are held already."""
        for page in pages:
            if self._references[page] < 1:
                raise EngineDeadError(f"page {page} is shared but nobody holds it")
            self._references[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """Drop a reference to each page; those that nobody holds any more are free again."""
        for page in pages:
            if self._references[page] < 1:
                raise EngineDeadError(f"page {page} is released but nobody holds it")
            self._references[page] -= 1
            if self._references[page] == 0:
                self._free.append(page)
