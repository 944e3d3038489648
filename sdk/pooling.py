"""Pooling: from the hidden states of a sequence to one vector. What embedding models, classifiers and rerankers write.

A model computes hidden states as any other; of these, instead of logits, the engine asks it for a vector of each sequence, its
class or its score. By default an embedding is pooled as the checkpoint's folder says, in sentence-transformers' form.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._contract import hook

if TYPE_CHECKING:
    from .context import ModelContext

PoolingTask = Literal["embed", "classify", "score"]
POOLING_TASKS: tuple[PoolingTask, ...] = ("embed", "classify", "score")
"""Vectors; probabilities of classes; how well two texts fit each other."""
PoolingKind = Literal["cls", "max", "mean", "mean_sqrt_len", "weighted_mean", "last"]


@dataclass(frozen=True)
class Pooling:
    """How a checkpoint makes embeddings.

    Attributes:
        kinds: What is taken of the rows of a sequence; of several, the vectors end to end.
        normalize: Whether an embedding has length 1.
        max_length: Longest sequence that the checkpoint was made for; None: as its config says.
    """

    kinds: tuple[PoolingKind, ...] = ("mean",)
    normalize: bool = False
    max_length: int | None = None


class Pooler(nn.Module):
    """The rows of sequences that lie end to end → one vector for each, in float32.

    Args:
        kinds: `cls`: the first row; `last`; `mean`, `max`, `mean_sqrt_len` (the sum over the root of the length) or
            `weighted_mean` (later rows count for more: 1, 2, 3 …) of all.

    Shapes: hidden_states `(tokens, width)`, lengths `(sequences,)`, which add up to all → `(sequences, kinds * width)`.
    """

    def __init__(self, kinds: Sequence[PoolingKind]) -> None:
        super().__init__()
        unknown = [kind for kind in kinds if kind not in _POOLED]
        if unknown or not kinds:
            raise ValueError(
                f"{unknown[0] if unknown else 'nothing'!r} is no way to pool; there are: {', '.join(_POOLED)}"
            )
        self.kinds = tuple(kinds)

    def forward(self, hidden_states: Tensor, lengths: Tensor) -> Tensor:
        ends = lengths.cumsum(0)
        return torch.cat([_POOLED[kind](hidden_states, lengths, ends) for kind in self.kinds], dim=-1)

    def extra_repr(self) -> str:
        return ", ".join(self.kinds)


def _sums(rows: Tensor, lengths: Tensor) -> Tensor:
    # Each sequence is summed by itself and in order, so that it has the same sum in any batch.
    return torch.segment_reduce(rows.float(), "sum", lengths=lengths, axis=0)


def _weighted_mean(x: Tensor, lengths: Tensor, ends: Tensor) -> Tensor:
    firsts = torch.repeat_interleave(ends - lengths, lengths, output_size=len(x))
    weights = (torch.arange(1, len(x) + 1, device=x.device) - firsts).float()[:, None]
    return _sums(x * weights, lengths) / _sums(weights, lengths)


_POOLED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cls": lambda x, lengths, ends: x[ends - lengths].float(),
    "max": lambda x, lengths, ends: torch.segment_reduce(x.float(), "max", lengths=lengths, axis=0),
    "mean": lambda x, lengths, ends: _sums(x, lengths) / lengths[:, None],
    "mean_sqrt_len": lambda x, lengths, ends: _sums(x, lengths) / lengths[:, None].float().sqrt(),
    "weighted_mean": _weighted_mean,
    "last": lambda x, lengths, ends: x[ends - 1].float(),
}


class SupportsPooling:
    """A model that makes one vector of a sequence. Its capabilities name which of the tasks it is for.

    The engine computes every sequence whole, and hands the hidden states of all of them to one of the hooks:
    hidden_states `(tokens, hidden)`, as `forward` returned them; lengths `(sequences,)` int64, which add up to all.
    """

    supports_pooling: ClassVar[bool] = True
    default_pooling: ClassVar[Pooling] = Pooling()
    """How `embed` pools where the checkpoint's folder does not say."""
    ctx: ModelContext

    @property
    def pooling(self) -> Pooling:
        """How this checkpoint makes embeddings."""
        return self.ctx.pooling or self.default_pooling

    @hook
    def embed(self, hidden_states: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings, `(sequences, dimensions)`, before they are shortened or normalised."""
        out: Tensor = Pooler(self.pooling.kinds)(hidden_states, lengths)
        return out

    @hook
    def classify(self, hidden_states: Tensor, lengths: Tensor) -> Tensor:
        """Logits of the config's classes, `(sequences, labels)`; see `class_activation` for what becomes of them."""
        raise NotImplementedError(f"{type(self).__qualname__} has no classify")

    @hook
    def score(self, hidden_states: Tensor, lengths: Tensor) -> Tensor:
        """How well the two texts of each sequence fit, `(sequences,)`, as a logit: of a classifier, its only class."""
        return self.classify(hidden_states, lengths)[:, 0]


def supports_pooling(model: object) -> bool:
    """Whether a model, or a model class, implements `SupportsPooling`."""
    return bool(getattr(model, "supports_pooling", False))


def takes_token_types(model: nn.Module) -> bool:
    """Whether a model's `forward` takes `token_type_ids`: `(tokens,)`, which of a pair's texts each token is of."""
    return "token_type_ids" in inspect.signature(model.forward).parameters


def finish_embedding(vectors: Tensor, dimensions: int | None, *, normalize: bool) -> Tensor:
    """Shorten embeddings `(…, width)` to the first `dimensions` (Kusupati et al. 2022), and give them length 1."""
    kept = vectors if dimensions is None else vectors[..., :dimensions]
    return F.normalize(kept, dim=-1) if normalize else kept


def class_activation(config: Any) -> Callable[[Tensor], Tensor]:
    """What makes probabilities of a classifier's logits `(…, labels)`.

    Sentence-transformers' cross-encoders may say it in their config; otherwise the problem does, as in transformers'
    text-classification pipeline: one class or several at once, a sigmoid each; a choice among classes, their softmax.
    """
    said = (getattr(config, "sentence_transformers", None) or {}).get("activation_fn")
    said = str(said or getattr(config, "sbert_ce_default_activation_function", None) or "").rpartition(".")[2]
    if said == "Identity" or (not said and getattr(config, "problem_type", None) == "regression"):
        return lambda logits: logits
    if said == "Sigmoid" or config.num_labels == 1 or config.problem_type == "multi_label_classification":
        return torch.sigmoid
    return lambda logits: logits.softmax(dim=-1)


__all__ = [
    "POOLING_TASKS",
    "Pooler",
    "Pooling",
    "PoolingTask",
    "SupportsPooling",
    "class_activation",
    "finish_embedding",
    "supports_pooling",
    "takes_token_types",
]
