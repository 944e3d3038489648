"""How many states of the audio encoder become one row of embeddings."""

from __future__ import annotations

from typing import Any

from sdk.errors import InvalidConfigError


def states_per_row(audio_config: Any) -> int:
    """Neighbouring states are laid end to end until they are as wide as the encoder's feed-forward layer.

    Raises:
        InvalidConfigError: They do not come out even.
    """
    states, width, wide = audio_config.max_source_positions, audio_config.hidden_size, audio_config.intermediate_size
    if wide % width or states % (wide // width):
        raise InvalidConfigError(
            f"audio_config: {states} states of width {width} make no whole rows of width intermediate_size={wide}"
        )
    return int(wide // width)


def rows_per_window(audio_config: Any) -> int:
    """Rows of embeddings of one window, which is what the encoder hears at once."""
    return int(audio_config.max_source_positions // states_per_row(audio_config))


__all__ = ["rows_per_window", "states_per_row"]
