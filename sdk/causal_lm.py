"""`CausalLM`: what language models of the usual shape share, so that a plugin describes its decoder and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .interfaces import IntermediateTensors, Model
from .layers import ParallelLMHead
from .weights import WeightMap

if TYPE_CHECKING:
    from .context import ModelContext


class CausalLM(Model):
    """A decoder, and a head over the vocabulary that shares the embedding's table where the config ties them.

    A subclass writes `build_decoder`. The parameters bear HF's names: `model.…` and `lm_head.weight`.
    """

    weight_map = WeightMap(drop=[r"rotary_emb\.inv_freq$"])  # old checkpoints store what is computed

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        self.model = self.build_decoder(ctx.hf_config)
        table: Any = self.model.embed_tokens
        self.lm_head = ParallelLMHead(table.num_embeddings, table.embedding_dim)
        if ctx.hf_config.tie_word_embeddings:
            self.lm_head.tie_weights(table)

    def build_decoder(self, config: Any) -> nn.Module:
        """The decoder: a module with `embed_tokens`, called as `decoder(positions, embeddings)`.

        Shapes: positions `(tokens,)`, embeddings `(tokens, width of the table)` → `(tokens, width of the table)`.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no build_decoder")

    def get_input_embeddings(self, input_ids: Tensor) -> Tensor:  # type: ignore[override]  # text takes no media
        embeddings: Tensor = self.model.embed_tokens(input_ids)  # type: ignore[operator]
        return embeddings

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        if inputs_embeds is None:
            assert input_ids is not None, "the engine gives token ids or embeddings"
            inputs_embeds = self.get_input_embeddings(input_ids)
        hidden: Tensor = self.model(positions, inputs_embeds)
        return hidden

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(hidden_states)
        return logits
