"""Put media embeddings in their places among text embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import PromptUpdateError


def flatten_embeddings(embeddings: Tensor | Sequence[Tensor]) -> Tensor:
    """`(items, n, hidden)` or a list of `(n_i, hidden)` → `(sum of n, hidden)`."""
    if isinstance(embeddings, Tensor):
        return embeddings.flatten(0, -2)
    return torch.cat([e.flatten(0, -2) for e in embeddings])


def merge_by_mask(inputs_embeds: Tensor, embeddings: Tensor | Sequence[Tensor], mask: Tensor) -> Tensor:
    """Replace the rows of `inputs_embeds` where `mask` is true, in order.

    Args:
        inputs_embeds: `(tokens, hidden)`; not changed.
        embeddings: As many rows in total as `mask` has true entries.
        mask: `(tokens,)` bool. On a GPU it is not counted, which would wait for it: an engine gives as many rows as there are
            places.

    Raises:
        PromptUpdateError: The counts differ.
    """
    rows = flatten_embeddings(embeddings)
    if mask.device.type == "cpu" and rows.shape[0] != (wanted := int(mask.sum())):
        raise PromptUpdateError(f"{wanted} placeholder tokens but {rows.shape[0]} rows of media embeddings")
    if not len(rows):
        return inputs_embeds.clone()
    places = (mask.cumsum(0) - 1).clamp(0, len(rows) - 1)
    return torch.where(mask.unsqueeze(-1), rows.to(inputs_embeds.dtype).index_select(0, places), inputs_embeds)


def merge_multimodal_embeddings(
    input_ids: Tensor,
    inputs_embeds: Tensor,
    multimodal_embeddings: Tensor | Sequence[Tensor],
    placeholder_token_id: int | Sequence[int],
) -> Tensor:
    """The older guides' helper: merge where `input_ids` equals the placeholder token (or one of several)."""
    wanted = [placeholder_token_id] if isinstance(placeholder_token_id, int) else list(placeholder_token_id)
    mask = torch.isin(input_ids, torch.tensor(wanted, device=input_ids.device))
    return merge_by_mask(inputs_embeds, multimodal_embeddings, mask)
