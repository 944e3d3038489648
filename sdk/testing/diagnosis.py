"""From how numbers differ to where to look: the likely causes that the parity laws name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from .subject import Subject

_QKV = (
    "the first position is right and later ones are not, so it is what compares positions: the attention's scale, rotary "
    "positions, the order of q, k and v in a fused projection, or the mask"
)
_STATE = (
    "the first position is right and later ones are not, so it is what knows of the past: what a layer's `advance` makes of the "
    "tokens before and of its state, or attention, with its scale, positions, order of q, k and v, or mask"
)
_FIRST = (
    "wrong from the first position, where attention compares nothing: v or the output projection, the MLP and its "
    "activation, a norm and its epsilon, a residual, or the order of fused parts"
)


def reference_cause(subject: Subject, ids: Sequence[int], wrong: Sequence[int]) -> str:
    """Why a model by itself may differ from transformers at these positions of a prompt; `""` where nobody can tell."""
    try:
        return _compare(subject, ids, wrong)
    except Exception:  # a model that is wrong may be wrong in any way; what it computes has been told already
        return ""


def _compare(subject: Subject, ids: Sequence[int], wrong: Sequence[int]) -> str:
    import torch

    from ..layers import StateLayer

    with torch.inference_mode():
        if _right_at_first(subject, ids):
            return "right in a model that was never called, wrong in this one: it keeps something from one call to the next"
        missed = _missed(subject, ids)
        if missed:
            return f"weight_map drops {missed}, on which transformers' logits depend"
        tokens, positions = torch.tensor(list(ids)), torch.arange(len(ids))
        theirs = subject.hf(input_ids=tokens[None], output_hidden_states=True)
        ours = subject.reference.get_input_embeddings(tokens)
        embedded = subject.hf.get_input_embeddings()(tokens)
        if not _close(ours, embedded):
            return f"the embeddings differ already{_factor(ours, embedded)}: get_input_embeddings"
        hidden = subject.reference(tokens, positions)
        expected = theirs.hidden_states[-1][0]
        if _close(hidden, expected):
            logits = subject.reference.compute_logits(hidden)
            return (
                f"the hidden states agree and the logits do not{_factor(logits, theirs.logits[0])}: compute_logits, its "
                "scale or soft cap, or whether the head is tied to the embedding"
            )
        if wrong[0] == 0:
            return _FIRST + (
                _factor(hidden, expected) and f"; the hidden states are off by a factor{_factor(hidden, expected)}"
            )
    window = getattr(subject.text_config, "sliding_window", None)
    if window and wrong[0] >= int(window) - 1:
        return f"right up to position {wrong[0] - 1}: the sliding window ({window} in the config), or which layers have one"
    return _STATE if any(isinstance(module, StateLayer) for module in subject.reference.modules()) else _QKV


def _right_at_first(subject: Subject, ids: Sequence[int]) -> bool:
    """Whether a model that has seen no other prompt gives transformers' logits."""
    from .reference import fill, read_safetensors, reference_logits

    fresh = subject.build()
    fill(fresh, read_safetensors(subject.folder))
    ours, theirs = reference_logits(fresh, ids), subject.hf(input_ids=_batch(ids)).logits[0]
    return _close(ours, theirs)


def _batch(ids: Sequence[int]) -> Tensor:
    import torch

    return torch.tensor(list(ids))[None]


def _missed(subject: Subject, ids: Sequence[int]) -> str:
    """A tensor that was dropped on loading and that transformers uses: without it, its logits change."""
    tokens = _batch(ids)
    expected = subject.hf(input_ids=tokens).logits
    tensors = subject.hf.state_dict()
    for name in subject.loaded.dropped:
        if name in tensors and tensors[name].any():
            kept = tensors[name].clone()
            tensors[name].zero_()
            changed = not _close(subject.hf(input_ids=tokens).logits, expected)
            tensors[name].copy_(kept)
            if changed:
                return name
    return ""


def engine_cause(alone: bool, decoding: bool = False) -> str:
    """Why a model that is right by itself may be wrong in the engine."""
    if decoding:
        return (
            "the prompt is right and tokens after it are not: positions that forward makes itself instead of using the "
            "`positions` it is given, or something that is kept from one call of forward to the next"
        )
    if not alone:
        return (
            "right alone and wrong beside others: something is computed over all tokens of the batch, where sequences lie end "
            "to end (a mean, a mask, a position by torch.arange, attention by a function instead of the SDK's layer)"
        )
    return "a layer of the SDK is used by its parts and not called as a module, so that the engine's form of it is passed by"


def _close(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    return bool((ours - theirs).abs().max() <= 1e-4 * max(1.0, float(theirs.abs().max())))


def _factor(ours: Tensor, theirs: Tensor) -> str:
    """` (by a factor of 2)` where one tensor is a multiple of the other."""
    if ours.shape != theirs.shape:
        return ""
    factor = float((ours * theirs).sum() / (theirs * theirs).sum().clamp(min=1e-12))
    return f" (by a factor of {factor:.4g})" if _close(ours, factor * theirs) and abs(factor - 1) > 1e-3 else ""
