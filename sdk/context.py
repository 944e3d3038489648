"""What a model is given when it is built: `ModelContext`."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from .errors import InvalidConfigError
from .spec import Role

if TYPE_CHECKING:
    from .interfaces import Encoder, Model
    from .pooling import Pooling

Resolver = Callable[[Any, Role], "tuple[type[Model | Encoder], ModelContext]"]


@dataclass(frozen=True)
class ModelContext:
    """Everything a model may look at while it builds itself.

    Attributes:
        hf_config: The parsed config (for a part: its sub-config).
        dtype: What floating-point parameters will be.
        options: The plugin's own validated options, if it declares some.
        resolver: How `build` finds the class of a part; the engine's, which looks plugins up.
        pooling: How the checkpoint's folder says that embeddings are made; None where it does not.
    """

    hf_config: Any
    dtype: torch.dtype = torch.float32
    options: Any = None
    resolver: Resolver | None = None
    pooling: Pooling | None = None

    def text_config(self, *, plain_head: bool = False) -> Any:
        """A copy of the language model's config in a config that has other parts too, for `build`.

        Whether the head is tied stands at the top of such a config, and holds whatever the part's own says;
        where nothing stands there it is not.

        Args:
            plain_head: Whether the logits stay uncapped, also those of a language model that by itself caps them.
        """
        text = copy(self.hf_config.text_config)
        text.tie_word_embeddings = getattr(self.hf_config, "tie_word_embeddings", False)
        if plain_head and getattr(text, "final_logit_softcapping", None) is not None:
            text.final_logit_softcapping = None
        return text

    def build(self, config: Any, *, role: Role, prefix: str = "") -> Any:
        """Build a part of the model that another plugin knows.

        Args:
            config: The part's config; resolved by its architecture, or by its `model_type` and `role`.
            role: What the part is used as: `"causal-lm"`, `"vision-encoder"`, `"audio-encoder"`.
            prefix: The part's name in this model.

        Returns:
            An `sdk.Model` or `sdk.Encoder`.
        """
        if self.resolver is None:
            raise InvalidConfigError(
                f"no plugins at hand to build a {role} from model_type {getattr(config, 'model_type', '?')!r}: "
                "this context was made without a resolver"
            )
        cls, context = self.resolver(config, role)
        return cls(ctx=replace(context, dtype=self.dtype, resolver=self.resolver), prefix=prefix)
