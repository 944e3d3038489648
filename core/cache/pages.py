"""The pool of K/V pages: who holds which, and what is in those that nobody holds. Knows numbers and keys, no tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from ..errors import EngineDeadError


class PagePool:
    """Hands out pages `1 … num_pages`; page 0 is never given out, so that padding may point at it.

    A full page may be published under a key that says everything its contents depend on. It keeps them when nobody holds
    it any more, until the room is needed: the pages let go longest ago are given out first.

    Args:
        num_pages: How many there are to give.
        page_size: Tokens in a page.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages, self.page_size = num_pages, page_size
        self._blank = list(range(num_pages, 0, -1))
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._references = [0] * (num_pages + 1)
        self._page_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}

    @property
    def num_free(self) -> int:
        """Pages that nobody holds, whether or not they keep contents."""
        return len(self._blank) + len(self._kept)

    @property
    def num_kept(self) -> int:
        """Pages that nobody holds and that keep their contents."""
        return len(self._kept)

    def pages_for(self, num_tokens: int) -> int:
        """How many pages so many tokens take."""
        return -(-num_tokens // self.page_size)

    def take(self, count: int) -> list[int] | None:
        """Take `count` pages with one reference each; None, and nothing taken, when there are not as many."""
        if count > self.num_free:
            return None
        pages = [self._blank.pop() for _ in range(min(count, len(self._blank)))]
        while len(pages) < count:
            page, _ = self._kept.popitem(last=False)
            del self._page_of[self._key_of.pop(page)]
            pages.append(page)
        for page in pages:
            self._references[page] = 1
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """Add a reference to pages that are held already, or that keep their contents."""
        for page in pages:
            if self._references[page] < 1:
                if page not in self._kept:
                    raise EngineDeadError(f"page {page} is shared but nobody holds it")
                del self._kept[page]
            self._references[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """Drop a reference to each page; those that nobody holds any more are free again."""
        for page in pages:
            if self._references[page] < 1:
                raise EngineDeadError(f"page {page} is released but nobody holds it")
            self._references[page] -= 1
            if self._references[page] == 0:
                if page in self._key_of:
                    self._kept[page] = None
                else:
                    self._blank.append(page)

    def publish(self, page: int, key: bytes) -> None:
        """Say what a held page contains. Where another page contains the same already, that one stays the known one."""
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key], self._key_of[page] = page, key

    def is_published(self, page: int) -> bool:
        """Whether others may find this page."""
        return page in self._key_of

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """The pages that contain what `keys` say, up to the first that no page contains. Not held yet: see `share`."""
        pages = []
        for key in keys:
            page = self._page_of.get(key)
            if page is None:
                break
            pages.append(page)
        return pages

    def forget(self) -> None:
        """Forget all contents; whoever holds a page goes on holding it."""
        self._blank += self._kept
        self._kept.clear()
        self._page_of.clear()
        self._key_of.clear()
