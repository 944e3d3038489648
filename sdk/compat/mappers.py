"""Input mappers, dummy data factories and input processors of the older guides, as the three processing classes of today.

A mapper says what the model is given for an item: it stands for the HF processor. An input processor writes an item's
placeholder tokens into the ids: it is asked for each item by itself, and its answer is the prompt update.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from ..multimodal.dummy import BaseDummyInputsBuilder
from ..multimodal.fields import MultiModalFieldConfig, MultiModalKwargsItems
from ..multimodal.info import BaseProcessingInfo
from ..multimodal.items import EmbeddingItems, MultiModalDataItems, ProcessedItems, RawItems
from ..multimodal.processor import HF_DATA_NAMES, BaseMultiModalProcessor
from ..multimodal.updates import (
    PromptIndexTargets,
    PromptInsertion,
    PromptReplacement,
    PromptUpdate,
    PromptUpdateDetails,
)
from .inputs import ImageFeatureData, ImagePixelData, InputContext, token_inputs
from .refused import NotPortableError

Mapper = Callable[[Any, Any], Mapping[str, Any]]
Dummy = Callable[..., Any]
FEATURES = "image_features"
_TEXT = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}


@dataclass
class Registrations:
    """What decorators registered for one model class."""

    classes: dict[str, type] = field(default_factory=dict)
    mappers: dict[str, Mapper | None] = field(default_factory=dict)
    features: Mapper | None = None
    max_tokens: dict[str, int | Callable[[Any], int] | None] = field(default_factory=dict)
    dummy: Dummy | None = None
    processor: Callable[[Any, Any], Any] | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """Media with a mapper; today's three classes say it by `get_supported_mm_limits`."""
        return tuple(dict.fromkeys([*self.mappers, *(["image"] if self.features else [])]))

    def set_classes(self, classes: dict[str, type]) -> None:
        """Note today's three classes."""
        self.classes = classes

    def set_mapper(self, modality: str, mapper: Mapper | None) -> None:
        """Note the mapper of a modality."""
        self.mappers[modality] = mapper

    def set_features(self, mapper: Mapper) -> None:
        """Note that features of pictures are taken."""
        self.features = mapper

    def set_max_tokens(self, modality: str, most: int | Callable[[Any], int] | None) -> None:
        """Note the most tokens of an item."""
        self.max_tokens[modality] = most

    def set_dummy(self, factory: Dummy) -> None:
        """Note the dummy data factory."""
        self.dummy = factory

    def set_processor(self, processor: Callable[[Any, Any], Any]) -> None:
        """Note the input processor."""
        self.processor = processor


def parts_of(cls: type, registrations: Registrations) -> dict[str, type]:
    """The processing classes of a model: `processor`, `info` and `dummy_inputs`; empty where nothing says how media go.

    Raises:
        NotPortableError: What was registered does not say enough.
    """
    if registrations.classes:
        return registrations.classes
    if not registrations.modalities:
        return {}
    if registrations.processor is None:
        raise NotPortableError(
            f"{cls.__qualname__} registers input mappers and no input processor: nothing says how many tokens an item takes "
            "in the prompt. Add @INPUT_REGISTRY.register_input_processor(f), where f(ctx, inputs) returns the inputs with "
            "the item's placeholder tokens in prompt_token_ids"
        )
    lacking = [m for m, mapper in registrations.mappers.items() if mapper is None and m != "image"]
    if lacking:
        raise NotPortableError(
            f"{cls.__qualname__}: there is a default mapper for pictures alone; give register_input_mapper({lacking[0]!r}, …) "
            "the function that returns the model's arguments for one item"
        )
    own = {"registrations": registrations, "__module__": cls.__module__}
    bases = {"processor": MapperProcessor, "info": MapperInfo, "dummy_inputs": MapperDummyInputs}
    return {part: type(f"{cls.__name__}{base.__name__}", (base,), own) for part, base in bases.items()}


class Pixels:
    """A mapper that is given pictures as the oldest guide's `ImagePixelData`."""

    def __init__(self, mapper: Mapper) -> None:
        self.mapper = mapper

    def __call__(self, ctx: Any, item: Any) -> Mapping[str, Any]:
        return self.mapper(ctx, ImagePixelData(item))


def as_features(mapper: Mapper | None) -> Mapper:
    """A mapper of features; the default passes them on under their name."""

    def mapped(ctx: Any, item: Any) -> Mapping[str, Any]:
        return {FEATURES: item} if mapper is None else mapper(ctx, ImageFeatureData(item))

    return mapped


class MapperInfo(BaseProcessingInfo):
    """What mappers and input processors say of the media."""

    registrations: ClassVar[Registrations]

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return dict.fromkeys(self.registrations.modalities)

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {modality: self._most(modality, seq_len) for modality in self.registrations.modalities}

    def _most(self, modality: str, seq_len: int) -> int:
        said = self.registrations.max_tokens.get(modality)
        if said is not None:
            return int(said(InputContext(self)) if callable(said) else said)
        return len(tokens_of(self, modality, dummy_items(self, seq_len, {modality: 1})[modality][0]))


class MapperDummyInputs(BaseDummyInputsBuilder[MapperInfo]):
    """What the dummy data factory gives."""

    registrations: ClassVar[Registrations]

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        tokenizer = self.info.get_tokenizer()
        ids = {modality: token_id(self.info, modality) for modality in mm_counts}
        known = [(i, mm_counts[modality]) for modality, i in ids.items() if i is not None]
        return "".join(str(tokenizer.convert_ids_to_tokens(i)) * count for i, count in known)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int]) -> dict[str, Any]:
        return dummy_items(self.info, seq_len, mm_counts)


class Mapped(dict[str, Any]):
    """What mappers gave for all items of a prompt, and how it falls into items again."""

    fields: Mapping[str, MultiModalFieldConfig]


class MapperProcessor(BaseMultiModalProcessor[MapperInfo]):
    """Runs mappers in the place of the HF processor, and the input processor for the prompt updates."""

    registrations: ClassVar[Registrations]

    def _call_hf_processor(
        self,
        prompt: str,
        mm_data: Mapping[str, object],
        mm_kwargs: Mapping[str, object],
        tok_kwargs: Mapping[str, object],
    ) -> Mapping[str, Any]:
        names = {name: modality for modality, name in HF_DATA_NAMES.items()}
        made, fields = Mapped(), dict[str, MultiModalFieldConfig]()
        for name, items in mm_data.items():
            modality = names.get(name, name)
            assert isinstance(items, list)
            outputs = [self._mapped(modality, item, mm_kwargs) for item in items]
            for key in outputs[0]:
                made[key] = [_without_batch(output[key]) for output in outputs]
                fields[key] = MultiModalFieldConfig.batched(modality)
        made.fields = fields
        return made

    def _mapped(self, modality: str, item: Any, mm_kwargs: Mapping[str, object]) -> Mapping[str, Any]:
        mapper, ctx = self.registrations.mappers.get(modality), InputContext(self.info)
        if mapper is not None:
            return mapper(ctx, item)
        made: Mapping[str, Any] = ctx.get_hf_image_processor()(images=[item], return_tensors="pt", **mm_kwargs)
        return made

    def _get_mm_fields_config(
        self, hf_inputs: Mapping[str, Any], hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        if isinstance(hf_inputs, Mapped):
            return hf_inputs.fields
        # Tensors that a caller processed, in the names of the model's arguments: of the one modality there is.
        modality = self.registrations.modalities[0]
        return {name: MultiModalFieldConfig.batched(modality) for name in hf_inputs if name not in _TEXT}

    def _split_given(self, items: ProcessedItems, kwargs: Mapping[str, Any]) -> Any:
        mapper = self.registrations.features
        if mapper is None or FEATURES not in items.tensors:
            return super()._split_given(items, kwargs)
        outputs = [mapper(InputContext(self.info), features) for features in items.tensors[FEATURES]]
        joined = {name: [output[name] for output in outputs] for name in outputs[0]}
        return super()._split_given(ProcessedItems(items.modality, joined, len(outputs)), kwargs)

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        return [self._update(modality, items) for modality, items in mm_items.items()]

    def _update(self, modality: str, items: Any) -> PromptUpdate:
        token = token_id(self.info, modality)

        def details(index: int) -> PromptUpdateDetails | list[int]:
            if isinstance(items, EmbeddingItems):
                full = [_known(token, modality)] * items.get_feature_size(index)
            else:
                full = tokens_of(self.info, modality, _given(items, index))
            return full if token is None or token not in full else PromptUpdateDetails.select_token_id(full, token)

        if token is not None:
            return PromptReplacement(modality, [token], details)
        return PromptInsertion(modality, _place(self.info, modality, _given(items, 0)), details)


def token_id(info: BaseProcessingInfo, modality: str) -> int | None:
    """The token that stands for an item in a prompt, as the config names it."""
    config = info.get_hf_config()
    found = (getattr(config, f"{modality}_token_{suffix}", None) for suffix in ("id", "index"))
    return next((int(value) for value in found if isinstance(value, int)), None)


def tokens_of(info: MapperInfo, modality: str, item: Any) -> list[int]:
    """The tokens that the input processor writes for one item."""
    token = token_id(info, modality)
    if token is not None:
        return _processed(info, modality, item, [token])
    probe = _probe(info)
    return [*_inserted(probe, _processed(info, modality, item, probe))[1]]


def _processed(info: MapperInfo, modality: str, item: Any, ids: list[int]) -> list[int]:
    process = info.registrations.processor
    assert process is not None  # parts_of has seen to it
    out = process(InputContext(info), token_inputs(ids, None, {modality: item}))
    return [int(token) for token in out["prompt_token_ids"]]


def _probe(info: MapperInfo) -> list[int]:
    """A prompt in which it shows where tokens were inserted: the beginning token, if there is one, and some other."""
    tokenizer = info.get_tokenizer()
    special = set(tokenizer.all_special_ids)
    other = next(i for i in range(len(tokenizer)) if i not in special)
    return [*([tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []), other]


def _inserted(probe: list[int], out: list[int]) -> tuple[int, list[int]]:
    """Where in a prompt tokens were inserted, and which."""
    more = len(out) - len(probe)
    for at in range(len(probe) + 1):
        if more > 0 and out[:at] == probe[:at] and out[at + more :] == probe[at:]:
            return at, out[at : at + more]
    raise NotPortableError(
        "the input processor does something else to a prompt than to insert an item's tokens at one place; write "
        "_get_prompt_updates, in a subclass of sdk.multimodal.BaseMultiModalProcessor"
    )


def _place(info: MapperInfo, modality: str, item: Any) -> PromptIndexTargets:
    probe = _probe(info)
    at, _ = _inserted(probe, _processed(info, modality, item, probe))
    if at == len(probe):
        return PromptIndexTargets.END
    return PromptIndexTargets.PREFIX if at else PromptIndexTargets.START


def _known(token: int | None, modality: str) -> int:
    if token is None:
        raise NotPortableError(f"embeddings of {modality} need a placeholder token: config.{modality}_token_id")
    return token


def _given(items: Any, index: int) -> Any:
    """An item in the form in which the caller gave it."""
    if isinstance(items, RawItems):
        return items.data[index]
    return next(iter(items.tensors.values()))[index]


def _without_batch(value: Any) -> Any:
    """A mapper's output for one item without the dimension that counts one item."""
    return value[0] if isinstance(value, Tensor) and value.ndim > 1 and len(value) == 1 else value


def dummy_items(info: MapperInfo, seq_len: int, mm_counts: Mapping[str, int]) -> dict[str, list[Any]]:
    """What the dummy data factory gives, as lists of items; by default, a picture of the tower's size."""
    factory = info.registrations.dummy
    if factory is None:
        if set(mm_counts) - {"image"}:
            raise NotPortableError(
                f"register dummy data for {', '.join(set(mm_counts) - {'image'})}: register_dummy_data"
            )
        from PIL import Image

        side = _side(info.get_hf_config())
        return {"image": [Image.new("RGB", (side, side)) for _ in range(mm_counts.get("image", 0))]}
    counted = len(inspect.signature(factory).parameters) > 2
    _, media = factory(InputContext(info), seq_len, *([mm_counts] if counted else []))
    named: dict[str, Any] = (
        {"image": media} if isinstance(media, (ImagePixelData, ImageFeatureData)) else dict(media or {})
    )
    return {modality: _as_items(named.get(modality), count) for modality, count in mm_counts.items()}


def _as_items(value: Any, count: int) -> list[Any]:
    items = value if isinstance(value, list) else [] if value is None else [value] * count
    return [item.image if isinstance(item, ImagePixelData) else item for item in items]


def _side(config: Any) -> int:
    for part in (getattr(config, "vision_config", None), config):
        size = getattr(part, "image_size", None)
        if size is not None:
            return int(max(size) if isinstance(size, (list, tuple)) else size)
    raise NotPortableError(
        "the config names no image_size: register dummy data with INPUT_REGISTRY.register_dummy_data"
    )
