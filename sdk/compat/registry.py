"""`ModelRegistry`, `MULTIMODAL_REGISTRY` and `INPUT_REGISTRY` of the guides, over the SDK's table of in-process registrations.

A decorator notes what it is given at the class; `ModelRegistry.register_model` registers the class with all of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .. import registry as table
from ..errors import InvalidRequestError
from ..spec import Capabilities
from .mappers import Dummy, Mapper, Pixels, Registrations, as_features
from .model import adapt
from .ported import target

C = TypeVar("C", bound=type)


def noted(cls: type) -> Registrations:
    """What decorators registered for a class; made when the first one does."""
    if "sdk_registrations" not in vars(cls):
        cls.sdk_registrations = Registrations()  # type: ignore[attr-defined]
    found: Registrations = cls.sdk_registrations  # type: ignore[attr-defined]
    return found


class _ModelRegistry:
    """Registers models in this process."""

    def register_model(
        self, model_arch: str, model_cls: type | str, *, modalities: Sequence[str] = (), replace: bool = False
    ) -> None:
        """Register a model class under its HF architecture.

        Args:
            model_arch: As in config.json's `architectures`.
            model_cls: The class, ported or an `sdk.Model`; or `"module:Class"`, imported when it is first used.
            modalities: Of a `"module:Class"` that takes media, which ones; of a class this is known.
            replace: Whether another registration may be replaced.

        Raises:
            NotPortableError: The class cannot be adapted; the message says how it is written here.
            PluginConflictError: The architecture is registered already, as something else.
        """
        if isinstance(model_cls, str):
            if model_cls.count(":") != 1:
                raise InvalidRequestError(f"register a class or 'module:Class', not {model_cls!r}", param="model_cls")
            parts = {part: target(f"{model_cls}.compat_{part}") for part in _PARTS} if modalities else {}
            self._register(model_arch, target(model_cls), parts, replace)
        else:
            adapted = adapt(model_cls)
            found = {part: getattr(adapted, f"compat_{part}", None) for part in _PARTS}
            parts = {part: value for part, value in found.items() if value is not None}
            registrations: Registrations | None = getattr(model_cls, "sdk_registrations", None)
            modalities = registrations.modalities if registrations is not None else ()
            self._register(model_arch, adapted, parts, replace)
        if parts:
            said: Any = Capabilities(modalities=tuple(modalities)) if modalities else None
            table.register(
                model_arch, said or functools.partial(_capabilities, parts["info"]), part="capabilities", replace=True
            )

    def _register(self, architecture: str, model: Any, parts: dict[str, Any], replace: bool) -> None:
        role = {"role": "vision-language"} if parts else {}
        table.register(architecture, model, replace=replace, **parts, **role)


_PARTS = ("processor", "info", "dummy_inputs")


def _capabilities(info: Any, config: Any) -> Capabilities:
    """What a model with these processing classes takes, told from its config."""
    from ..multimodal.info import InputProcessingContext

    return Capabilities(modalities=tuple(info(InputProcessingContext("", config, None)).get_supported_mm_limits()))


class _MultiModalRegistry:
    """Decorators of a model class that say how its media are processed."""

    def register_processor(self, processor: type, *, info: type, dummy_inputs: type) -> Callable[[C], C]:
        """The three classes of today's guides."""
        return _noting(lambda r: r.set_classes({"processor": processor, "info": info, "dummy_inputs": dummy_inputs}))

    def register_input_mapper(self, modality: str, mapper: Mapper | None = None) -> Callable[[C], C]:
        """`mapper(ctx, item)` gives the model's arguments for one item; by default, HF's processor of the modality does."""
        return _noting(lambda r: r.set_mapper(modality, mapper))

    def register_image_input_mapper(self, mapper: Mapper | None = None) -> Callable[[C], C]:
        """`register_input_mapper` for pictures."""
        return self.register_input_mapper("image", mapper)

    def register_image_pixel_input_mapper(self, mapper: Mapper | None = None) -> Callable[[C], C]:
        """`register_input_mapper` for pictures, with a mapper that is given them as `ImagePixelData`."""
        return self.register_input_mapper("image", Pixels(mapper) if mapper is not None else None)

    def register_image_feature_input_mapper(self, mapper: Mapper | None = None) -> Callable[[C], C]:
        """The model takes what a tower made of pictures as well, as `multi_modal_data={"image": {"image_features": …}}`.

        `mapper(ctx, ImageFeatureData)` gives its arguments for one; by default, `image_features` itself.
        """
        return _noting(lambda r: r.set_features(as_features(mapper)))

    def register_max_multimodal_tokens(
        self, modality: str, max_mm_tokens: int | Callable[[Any], int] | None = None
    ) -> Callable[[C], C]:
        """The most tokens of one item: a number, or a function of the context; by default, those of the dummy item."""
        return _noting(lambda r: r.set_max_tokens(modality, max_mm_tokens))

    def register_max_image_tokens(self, max_mm_tokens: int | Callable[[Any], int] | None = None) -> Callable[[C], C]:
        """`register_max_multimodal_tokens` for pictures."""
        return self.register_max_multimodal_tokens("image", max_mm_tokens)


class _InputRegistry:
    """Decorators of a model class of the older guides."""

    def register_dummy_data(self, factory: Dummy) -> Callable[[C], C]:
        """`factory(ctx, seq_len[, mm_counts])` gives a dummy prompt and its media; by default, a picture of the tower's size."""
        return _noting(lambda r: r.set_dummy(factory))

    def register_input_processor(self, processor: Callable[[Any, Any], Any]) -> Callable[[C], C]:
        """`processor(ctx, inputs)` gives the inputs with every item's placeholder tokens in their ids."""
        return _noting(lambda r: r.set_processor(processor))


def _noting(note: Callable[[Registrations], None]) -> Callable[[C], C]:
    def decorate(cls: C) -> C:
        note(noted(cls))
        return cls

    return decorate


ModelRegistry = _ModelRegistry()
MULTIMODAL_REGISTRY = _MultiModalRegistry()
INPUT_REGISTRY = _InputRegistry()
