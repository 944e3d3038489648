"""What a page of K/V depends on, as a key: equal keys, equal contents.

The keys are a chain, so that a page's key stands for every token and every media item before it as well. 256 bits of SHA-256
leave no room for two prefixes to meet, and a salt keeps those who must not learn of each other's prompts apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..request import Request

_ROOT = b"engine prefix 1"


def page_keys(request: Request, page_size: int) -> Sequence[bytes]:
    """The keys of a sequence's full pages, as far as its tokens are known.

    What a decoder attends over stands for the whole sequence. A page over which a media item lies depends on the item's own key
    and on how far into the item it begins. An item without a key, whose contents nobody vouches for, ends the chain.
    """
    keys = request.page_keys
    if request.encoder_item is not None and not request.encoder_item.key:
        return keys
    for page in range(len(keys), len(request.token_ids) // page_size):
        start, stop = page * page_size, (page + 1) * page_size
        parent = keys[-1] if keys else _root(request)
        state = hashlib.sha256(parent)
        state.update(np.array(request.token_ids[start:stop], dtype="<i4").tobytes())
        for i in request.items_between(start, stop) if request.items else ():
            item = request.items[i]
            if not item.key:
                return keys
            state.update(hashlib.sha256(item.key).digest())
            state.update((item.placeholder.offset - start).to_bytes(8, "little", signed=True))
        keys.append(state.digest())
    return keys


def _root(request: Request) -> bytes:
    salt = hashlib.sha256(request.cache_salt).digest()
    heard = request.encoder_item.key if request.encoder_item is not None else b""
    return hashlib.sha256(_ROOT + salt + heard).digest()
