"""Voxtral (Liu et al. 2025): what Whisper's encoder hears stands among the text of a language model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sdk import Model, ModelContext, SupportsMultiModal, WeightMap
from sdk.layers import Activation, ColumnParallelLinear, RowParallelLinear

from .geometry import states_per_row


class VoxtralMultiModalProjector(nn.Module):
    """`linear_2(act(linear_1(x)))`: `(…, intermediate of the encoder) -> (…, hidden)`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden_size = config.text_config.hidden_size
        self.linear_1 = ColumnParallelLinear(config.audio_config.intermediate_size, hidden_size, False)
        self.act = Activation(config.projector_hidden_act)
        self.linear_2 = RowParallelLinear(hidden_size, hidden_size, False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(self.act(self.linear_1(x)))
        return out


class VoxtralForConditionalGeneration(Model, SupportsMultiModal):
    """Clips become embeddings that stand among the prompt's, where its audio tokens are."""

    # Published checkpoints name the parts at the top; transformers 5.4 and later may put them under `model`.
    weight_map = WeightMap(
        rename=[
            (r"^model\.(audio_tower|multi_modal_projector)(?=\.)", r"\1"),
            (r"^model\.language_model\.", "language_model.model."),
            (r"^lm_head\.", "language_model.lm_head."),
        ]
    )

    def __init__(self, *, ctx: ModelContext, prefix: str = "") -> None:
        super().__init__(ctx=ctx, prefix=prefix)
        config = ctx.hf_config
        self.states_per_row = states_per_row(config.audio_config)
        self.audio_tower = ctx.build(config.audio_config, role="audio-encoder", prefix="audio_tower")
        self.multi_modal_projector = VoxtralMultiModalProjector(config)
        text_config = ctx.text_config(plain_head=True)
        text_config.tie_word_embeddings = False  # whatever the config says; in transformers too
        self.language_model = ctx.build(text_config, role="causal-lm", prefix="language_model")

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        if modality != "audio":
            raise ValueError(f"Voxtral takes clips, not {modality}")
        return None  # what the dummy text has

    def get_language_model(self) -> nn.Module:
        return self.language_model

    def get_multimodal_embeddings(self, input_features: Tensor, num_windows: Tensor) -> list[Tensor]:
        """Encode clips, the windows of all of them together.

        Args:
            input_features: `(windows, mel bins, frames)`, log-mel; a clip's windows lie end to end.
            num_windows: `(items,)`, how many each clip has.

        Returns:
            One `(windows · rows, hidden)` for each clip.
        """
        states: Tensor = self.audio_tower(input_features)
        rows = states.unflatten(1, (-1, self.states_per_row)).flatten(2)
        embeddings: Tensor = self.multi_modal_projector(rows)
        return [clip.flatten(0, 1) for clip in embeddings.split(num_windows.tolist())]


__all__ = ["VoxtralForConditionalGeneration", "VoxtralMultiModalProjector"]
