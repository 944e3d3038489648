"""What a model is to the engine: `Model`, `Encoder` and the interfaces that add to them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ._contract import check_class, hook, lenient
from .multimodal.merge import merge_by_mask
from .weights import WeightMap, load_weights

if TYPE_CHECKING:
    from .context import ModelContext

IntermediateTensors = dict[str, Tensor]
"""What one pipeline stage hands to the next."""
MultiModalEmbeddings = Tensor | Sequence[Tensor]
"""`(items, n, hidden)`, or one `(n_i, hidden)` for each item."""


class Model(nn.Module):
    """A model that turns token ids into logits.

    A subclass writes `__init__(self, *, ctx: ModelContext, prefix: str = "")`, `get_input_embeddings`, `forward` and
    `compute_logits` with the layers of `sdk.layers`; caching, batching, packing and splitting are the engine's. The
    defaults of these three serve a model with a language model inside, which `get_language_model` gives.
    """

    weight_map: ClassVar[WeightMap] = WeightMap()
    """How the checkpoint's names become this module's."""

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__()
        self.ctx, self.config, self.prefix = ctx, ctx.hf_config, prefix

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls)

    @hook
    @lenient
    def get_input_embeddings(
        self,
        input_ids: Tensor,
        multimodal_embeddings: MultiModalEmbeddings | None = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """Embed tokens: `(tokens,) -> (tokens, hidden)`. A model that takes no media takes `input_ids` alone.

        The default has the language model inside embed the text, and puts the media's embeddings where
        `is_multimodal` is true.
        """
        inner = _inside(self, "get_input_embeddings")
        # A placeholder may stand outside the vocabulary, and its embedding is replaced anyway.
        text = input_ids if is_multimodal is None else input_ids.masked_fill(is_multimodal, 0)
        embeds: Tensor = inner.get_input_embeddings(text)
        if multimodal_embeddings is None:
            return embeds
        if is_multimodal is None:
            raise ValueError("multimodal_embeddings need is_multimodal, the mask of the positions they take")
        return merge_by_mask(embeds, multimodal_embeddings, is_multimodal)

    @hook
    @lenient
    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
        **media: Any,
    ) -> Tensor:
        """Run the layers over the tokens of all requests, laid end to end: `(tokens,) -> (tokens, hidden)`.

        The default has the language model inside run.

        Args:
            input_ids: `(tokens,)`; unused where `inputs_embeds` is given.
            positions: `(tokens,)`, each token's position in its own sequence.
            intermediate_tensors: From the pipeline stage before, if any.
            inputs_embeds: `(tokens, hidden)`, embeddings to use in the place of `input_ids`.
        """
        inner = _inside(self, "forward")
        if intermediate_tensors is not None:
            media["intermediate_tensors"] = intermediate_tensors
        hidden: Tensor = inner(input_ids, positions, inputs_embeds=inputs_embeds, **media)
        return hidden

    @hook
    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        """Hidden states of the rows that are sampled → logits: `(rows, hidden) -> (rows, vocab)`.

        The default asks the language model inside.
        """
        logits: Tensor = _inside(self, "compute_logits").compute_logits(hidden_states)
        return logits

    @hook
    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Fill the parameters from the checkpoint; returns the names of those that were filled.

        The default follows `weight_map` and what the layers say of their fused parts.
        """
        return load_weights(self, weights)


def _inside(model: Model, left_out: str) -> Any:
    """The language model inside, whose answer is the default of a hook that `model` has left out."""
    inner = getattr(model, "get_language_model", lambda: model)()
    if inner is model:
        raise NotImplementedError(f"{type(model).__qualname__} has no {left_out}")
    return inner


def takes_media_mask(model: Model) -> bool:
    """Whether a model's `get_input_embeddings` takes `is_multimodal`: an override may leave it out."""
    parameters = inspect.signature(model.get_input_embeddings).parameters
    return "is_multimodal" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


class Encoder(nn.Module):
    """A component that turns media into hidden states: a vision tower, an audio encoder.

    A subclass writes `__init__(self, *, ctx: ModelContext, prefix: str = "")` and `forward`.
    """

    weight_map: ClassVar[WeightMap] = WeightMap()

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__()
        self.ctx, self.config, self.prefix = ctx, ctx.hf_config, prefix

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls)

    @hook
    @lenient
    def forward(self, inputs: Tensor, *, layers: Sequence[int] | None = None) -> Any:
        """Encode a batch of items.

        Args:
            inputs: `(items, …)`, e.g. pixel values `(items, channels, height, width)`.
            layers: Ask for the hidden states of these layers instead (0 is the embedding, -1 the last layer's output,
                before any final normalisation), without computing later ones.

        Returns:
            `(items, n, hidden)`, or a list of such tensors, one for each of `layers`.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no forward")

    @hook
    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """As `Model.load_weights`."""
        return load_weights(self, weights)


class SupportsMultiModal:
    """A model that takes media besides text."""

    supports_multimodal: ClassVar[bool] = True

    @classmethod
    @hook
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """What stands for the `i`-th item (from 1) of `modality` in the prompt of a string-only chat template.

        `None` leaves it to the checkpoint: what the dummy text has for an item.

        Raises:
            ValueError: The model does not take this modality.
        """
        raise ValueError(f"{cls.__qualname__} takes no {modality}")

    @hook
    def get_multimodal_embeddings(self, **media: Any) -> MultiModalEmbeddings | None:
        """Encode media items to embeddings of the language model's width.

        Args:
            media: Tensors as the processor names them, of one modality and any number of items.

        Returns:
            `(items, n, hidden)`, or one `(n_i, hidden)` for each item, in order; `None` when there is no item.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no get_multimodal_embeddings")

    @hook
    def get_language_model(self) -> nn.Module:
        """The language model inside: what `Model` by itself has embed the text, run, and make logits."""
        raise NotImplementedError(f"{type(self).__qualname__} has no get_language_model")


class SupportsEncoderDecoder:
    """A model whose decoder attends over what its encoder made of one medium, instead of finding it in its prompt."""

    supports_encoder_decoder: ClassVar[bool] = True

    @hook
    def encode(self, **media: Any) -> MultiModalEmbeddings:
        """Encode media items of one modality.

        Args:
            media: Tensors as the processor names them, of any number of items.

        Returns:
            `(items, n, hidden)`, or one `(n_i, hidden)` for each item. In an engine each `sdk.layers.CrossAttention` projects
            them once, and `forward` is called without; outside one, `forward` takes an item's as `encoder_states`.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no encode")


def supports_encoder_decoder(model: object) -> bool:
    """Whether a model, or a model class, implements `SupportsEncoderDecoder`."""
    return bool(getattr(model, "supports_encoder_decoder", False))


def supports_multimodal(model: object) -> bool:
    """Whether a model, or a model class, implements `SupportsMultiModal`."""
    return bool(getattr(model, "supports_multimodal", False))


__all__ = [
    "Encoder",
    "IntermediateTensors",
    "Model",
    "MultiModalEmbeddings",
    "SupportsEncoderDecoder",
    "SupportsMultiModal",
    "supports_encoder_decoder",
    "supports_multimodal",
]
