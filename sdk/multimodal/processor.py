"""The token path: a prompt's token ids and its media become final ids, placeholder ranges and tensors by item.

The HF processor sees the media with a dummy text; the prompt updates a plugin declares are applied to the tokens. So a
prompt is tokenized once, by whoever knows where its text comes from, and the ids equal those HF makes from the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor

from .._contract import check_class, hook, lenient
from ..errors import EngineError, InvalidRequestError, MediaUnsupportedError, PluginRuntimeError, PromptUpdateError
from .answers import checked_fields, checked_updates
from .dummy import BaseDummyInputsBuilder
from .fields import FieldValue, ItemKwargs, MultiModalFieldConfig, MultiModalKwargsItems, split_into_items
from .info import BaseProcessingInfo
from .items import AudioProcessorItems, EmbeddingItems, MultiModalDataItems, ProcessedItems, RawItems, parse_items
from .updates import PlaceholderRange, PromptUpdate, apply_prompt_updates

Info = TypeVar("Info", bound=BaseProcessingInfo)
HF_DATA_NAMES = {"image": "images", "audio": "audio", "video": "videos"}
"""Modality → the HF processor's argument."""


@dataclass(frozen=True)
class ProcessedItem:
    """One media item, ready for the model.

    Attributes:
        kwargs: The model's arguments for this item; empty when it comes as embeddings.
        placeholder: Its place in the prompt.
        embeddings: `(rows, hidden)` when the item came as embeddings.
        key: Equal for items of equal contents and for no others; empty where nobody vouches for that.
    """

    kwargs: ItemKwargs
    placeholder: PlaceholderRange
    embeddings: Tensor | None = None
    key: bytes = b""

    @property
    def modality(self) -> str:
        """The item's modality."""
        return self.placeholder.modality


@dataclass(frozen=True)
class ProcessedPrompt:
    """Final token ids and the media items in the order of their places.

    Attributes:
        prompt_token_ids: With placeholders expanded.
        items: Media that have a place in the prompt.
        encoder_item: The medium that the model's encoder takes and its decoder attends over.
    """

    prompt_token_ids: list[int]
    items: tuple[ProcessedItem, ...] = ()
    encoder_item: ProcessedItem | None = None


class ItemMemory(Protocol):
    """What the engine remembers of media items, so that an item that comes again is not processed again."""

    def key(self, modality: str, value: Any, arguments: Any) -> bytes:
        """A key over an item (raw, as processed tensors, or as embeddings) and the processor's arguments."""
        ...

    def get(self, key: bytes) -> ItemKwargs | None:
        """The model's arguments for the item of this key, if they are remembered."""
        ...

    def put(self, key: bytes, value: ItemKwargs) -> None:
        """Remember an item's arguments."""
        ...


class _NoMemory:
    """Remembers nothing; its keys vouch for nothing."""

    def key(self, modality: str, value: Any, arguments: Any) -> bytes:
        return b""

    def get(self, key: bytes) -> ItemKwargs | None:
        return None

    def put(self, key: bytes, value: ItemKwargs) -> None:
        pass


class BaseMultiModalProcessor(Generic[Info]):
    """Turns a prompt with media into a `ProcessedPrompt`. A subclass writes the fields and the prompt updates."""

    encoder_modality: ClassVar[str | None] = None
    """The modality that an encoder-decoder model's encoder takes, one item a prompt. Nothing stands for it in the prompt, which
    is the decoder's and complete: it gets no special tokens, but for the config's `decoder_start_token_id` where it is empty."""

    def __init__(self, info: Info, dummy_inputs: BaseDummyInputsBuilder[Any]) -> None:
        self.info, self.dummy_inputs = info, dummy_inputs

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls)

    # ---- what a plugin writes ---------------------------------------------------------------------------------------

    @hook
    def _get_mm_fields_config(
        self, hf_inputs: Mapping[str, Any], hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        """Which of the HF processor's outputs belong to which modality, and how they fall into items."""
        raise NotImplementedError(f"{type(self).__qualname__} has no _get_mm_fields_config")

    @hook
    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        """What HF's processor does to the prompt for each item, as replacements and insertions of tokens."""
        raise NotImplementedError(f"{type(self).__qualname__} has no _get_prompt_updates")

    @hook
    def _call_hf_processor(
        self,
        prompt: str,
        mm_data: Mapping[str, object],
        mm_kwargs: Mapping[str, object],
        tok_kwargs: Mapping[str, object],
    ) -> Mapping[str, Any]:
        """Run the HF processor; override it to change what it returns.

        Args:
            prompt: A dummy text with a placeholder for each item.
            mm_data: HF's argument name → items.
            mm_kwargs: Extra arguments for the processor, of engine and request.
            tok_kwargs: Extra arguments for the tokenizer.
        """
        processor = self.info.get_hf_processor()
        if HF_DATA_NAMES["audio"] in mm_data:
            mm_kwargs = {"sampling_rate": self.info.get_audio_sample_rate(), **mm_kwargs}
        out: Mapping[str, Any] = processor(text=prompt, **mm_data, **mm_kwargs, **tok_kwargs, return_tensors="pt")
        return out

    @hook
    @lenient
    def _apply_hf_processor_tokens_only(
        self, prompt_tokens: list[int], mm_counts: Mapping[str, int] | None = None
    ) -> list[int]:
        """What HF's processor does to a prompt besides writing the items' placeholders; the default: nothing.

        Args:
            prompt_tokens: As tokenized, before the prompt updates.
            mm_counts: Modality → items, for a processor that treats a prompt with media otherwise than one without.
        """
        return prompt_tokens

    # ---- what the base does -----------------------------------------------------------------------------------------

    def apply(
        self,
        prompt: str | Sequence[int],
        mm_data: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
        tok_kwargs: Mapping[str, Any] | None = None,
        memory: ItemMemory | None = None,
        salt: str = "",
    ) -> ProcessedPrompt:
        """Process one prompt.

        Args:
            prompt: Text, or its token ids with one placeholder an item.
            mm_data: Modality → items, see `parse_items`.
            mm_processor_kwargs: Extra processor arguments for this request; they win over the engine's.
            tok_kwargs: Extra tokenizer arguments, for a text prompt.
            memory: Where items that came before are found, and where new ones are remembered.
            salt: Items of different salts are different items to `memory`.

        Raises:
            PromptUpdateError: Placeholders and items do not agree.
            MediaError: An item cannot be processed.
            PluginRuntimeError: A hook failed or broke its contract.
        """
        kwargs = {**self.info.ctx.mm_processor_kwargs, **(mm_processor_kwargs or {})}
        mm_items = self.parse(mm_data or {})
        ids = self._tokenize(prompt, tok_kwargs or {}, mm_items.get_all_counts())
        out, keys = self._process_items(mm_items, kwargs, _NoMemory() if memory is None else memory, salt)
        encoder_item = self._encoder_item(mm_items, out, keys) if self.encoder_modality else None
        updates: Sequence[PromptUpdate] = ()
        counts = {m: n for m, n in mm_items.get_all_counts().items() if m != self.encoder_modality}
        if counts:
            updates = self._guard(
                "_get_prompt_updates", lambda: checked_updates(self._get_prompt_updates(mm_items, kwargs, out))
            )
        bos = getattr(self.info.get_tokenizer(), "bos_token_id", None)
        apply = partial(apply_prompt_updates, ids, updates, counts, bos_token_id=bos)
        final, places = self._guard("_get_prompt_updates", apply)
        self._check_leftovers(final, places)
        return ProcessedPrompt(final, tuple(self._item(p, mm_items, out, keys) for p in places), encoder_item)

    def parse(self, mm_data: Mapping[str, Any]) -> MultiModalDataItems:
        """Sort a caller's media by modality and form, within the plugin's own limits.

        Raises:
            MediaUnsupportedError: The model does not take a modality.
            InvalidRequestError: There are more items than the model takes.
        """
        limits = self.info.get_supported_mm_limits()
        items = MultiModalDataItems()
        for modality, value in mm_data.items():
            if value is None or (isinstance(value, (list, tuple)) and not value):
                continue
            if modality not in limits:
                raise MediaUnsupportedError(
                    f"this model takes no {modality}; it takes: {', '.join(limits) or 'text alone'}",
                    code="unsupported_modality",
                    param=f"multi_modal_data.{modality}",
                )
            items[modality] = found = parse_items(modality, value)
            if isinstance(found, AudioProcessorItems):
                found.check_rates(self._guard("get_audio_sample_rate", self.info.get_audio_sample_rate))
            limit, count = limits[modality], items[modality].get_count()
            if limit is not None and count > limit:
                raise InvalidRequestError(
                    f"{count} {modality} items in one prompt, but this model takes at most {limit}",
                    code="too_many_items",
                    param=f"multi_modal_data.{modality}",
                )
        return items

    def _encoder_item(
        self, mm_items: MultiModalDataItems, out: MultiModalKwargsItems, keys: Mapping[str, Sequence[bytes]]
    ) -> ProcessedItem:
        modality = str(self.encoder_modality)
        count = mm_items.get_count(modality)
        if count != 1 or isinstance(mm_items[modality], EmbeddingItems):
            raise InvalidRequestError(
                f"this model's encoder takes exactly one {modality}, raw or processed; "
                "give it in multi_modal_data, or in a message",
                param=f"multi_modal_data.{modality}",
            )
        nowhere = PlaceholderRange(modality, 0, 0, 0, np.zeros(0, dtype=np.bool_))
        return ProcessedItem(out[modality][0], nowhere, None, keys[modality][0])

    def _tokenize(
        self, prompt: str | Sequence[int], tok_kwargs: Mapping[str, Any], mm_counts: Mapping[str, int]
    ) -> list[int]:
        if self.encoder_modality:
            tok_kwargs = {"add_special_tokens": False, **tok_kwargs}
        ids = list(self.info.get_tokenizer()(prompt, **tok_kwargs)["input_ids"] if isinstance(prompt, str) else prompt)
        if self.encoder_modality and not ids:
            ids = [self.info.get_hf_config().decoder_start_token_id]
        function = self._apply_hf_processor_tokens_only
        counts = [mm_counts] if len(signature(function).parameters) > 1 else []
        done = self._guard("_apply_hf_processor_tokens_only", function, ids, *counts)
        return list(done)

    def _process_items(
        self, mm_items: MultiModalDataItems, kwargs: Mapping[str, Any], memory: ItemMemory, salt: str
    ) -> tuple[MultiModalKwargsItems, dict[str, list[bytes]]]:
        """The model's arguments for every item, and the items' keys."""

        def keys_of(modality: str, values: Sequence[Any]) -> list[bytes]:
            return [memory.key(modality, value, [kwargs, salt]) for value in values]

        raw = {m: i for m, i in mm_items.items() if isinstance(i, RawItems)}
        keys = {m: keys_of(m, items.data) for m, items in raw.items()}
        out = self._process_raw(raw, kwargs, keys, memory)
        for modality, items in mm_items.items():
            if isinstance(items, ProcessedItems):
                out[modality] = self._split_given(items, kwargs)
                keys[modality] = keys_of(modality, out[modality])
            elif isinstance(items, EmbeddingItems):
                self._check_width(items)
                field = MultiModalFieldConfig.batched(modality)
                out[modality] = [{f"{modality}_embeds": FieldValue(e, field)} for e in items.embeddings]
                keys[modality] = keys_of(modality, items.embeddings)
        return out, keys

    def _process_raw(
        self,
        raw: Mapping[str, RawItems],
        kwargs: Mapping[str, Any],
        keys: Mapping[str, Sequence[bytes]],
        memory: ItemMemory,
    ) -> MultiModalKwargsItems:
        """Items as they are remembered; the others through the HF processor, and remembered."""
        found = {m: [memory.get(key) for key in keys[m]] for m in raw}
        missing = {m: [i for i, item in enumerate(items) if item is None] for m, items in found.items()}
        counts = {m: len(indices) for m, indices in missing.items() if indices}
        if counts:
            text = self._guard("get_dummy_text", self.dummy_inputs.get_dummy_text, counts)
            data = {HF_DATA_NAMES.get(m, m): [raw[m].data[i] for i in missing[m]] for m in counts}
            made = self._guard("_call_hf_processor", self._call_hf_processor, text, data, kwargs, {})
            split = self._split(made, kwargs, counts)
            for modality in counts:
                for i, item in zip(missing[modality], split[modality]):
                    found[modality][i] = item
                    memory.put(keys[modality][i], item)
        return {m: [item for item in items if item is not None] for m, items in found.items()}

    def _split(
        self, tensors: Mapping[str, Any], kwargs: Mapping[str, Any], counts: Mapping[str, int]
    ) -> MultiModalKwargsItems:
        fields = self._fields(tensors, kwargs)
        items: MultiModalKwargsItems = self._guard("_get_mm_fields_config", split_into_items, tensors, fields)
        for modality, count in counts.items():
            if len(items.get(modality, ())) != count:
                raise self._broken(
                    "_get_mm_fields_config",
                    f"{count} {modality} items went in and {len(items.get(modality, ()))} came out; "
                    f"the HF processor made: {', '.join(tensors)}",
                )
        return items

    def _fields(self, tensors: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Mapping[str, MultiModalFieldConfig]:
        fields: Mapping[str, MultiModalFieldConfig] = self._guard(
            "_get_mm_fields_config", lambda: checked_fields(self._get_mm_fields_config(tensors, kwargs))
        )
        return fields

    def _split_given(self, items: ProcessedItems, kwargs: Mapping[str, Any]) -> list[ItemKwargs]:
        """Items of tensors that the caller processed: what is wrong with them is the caller's fault."""
        param = f"multi_modal_data.{items.modality}"
        fields = self._fields(items.tensors, kwargs)
        unknown = [name for name in items.tensors if name not in fields]
        if unknown:
            raise InvalidRequestError(
                f"processed {items.modality} data has {', '.join(unknown)}; this model takes: {', '.join(fields)}",
                param=param,
            )
        try:
            split = split_into_items(items.tensors, fields)[items.modality]
        except (ValueError, TypeError, IndexError, KeyError) as e:
            raise InvalidRequestError(
                f"processed {items.modality} data does not fall into items: {e}", param=param
            ) from e
        if len(split) != items.count:
            raise InvalidRequestError(
                f"processed {items.modality} data: {len(split)} of {items.count} items", param=param
            )
        return split

    def _check_width(self, items: EmbeddingItems) -> None:
        width = self.info.get_hf_config().get_text_config().hidden_size
        for i, embeddings in enumerate(items.embeddings):
            if embeddings.shape[1] != width:
                raise InvalidRequestError(
                    f"{items.modality} embeddings {i} are {embeddings.shape[1]} wide, the language model is {width}",
                    param=f"multi_modal_data.{items.modality}",
                )

    def _item(
        self,
        place: PlaceholderRange,
        mm_items: MultiModalDataItems,
        out: MultiModalKwargsItems,
        keys: Mapping[str, Sequence[bytes]],
    ) -> ProcessedItem:
        name = f"{place.modality} {place.index}"
        if place.num_embeds == 0:
            raise self._broken("_get_prompt_updates", f"{name} has no token that takes embeddings")
        items = mm_items[place.modality]
        embeddings = items.embeddings[place.index] if isinstance(items, EmbeddingItems) else None
        if embeddings is not None and embeddings.shape[0] != place.num_embeds:
            raise PromptUpdateError(f"{name}: {embeddings.shape[0]} rows of embeddings for {place.num_embeds} tokens")
        key = keys[place.modality][place.index]
        return ProcessedItem(out[place.modality][place.index] if embeddings is None else {}, place, embeddings, key)

    def _check_leftovers(self, ids: Sequence[int], places: Sequence[PlaceholderRange]) -> None:
        reserved = self.info.get_placeholder_token_ids()
        in_items = sum(1 for p in places for t in ids[p.offset : p.offset + p.length] if t in reserved)
        left = sum(1 for t in ids if t in reserved) - in_items
        if left > 0:
            counts: dict[str, int] = {}
            for p in places:
                counts[p.modality] = counts.get(p.modality, 0) + 1
            given = ", ".join(f"{n} {m}" for m, n in counts.items()) or "none"
            raise PromptUpdateError(
                f"the prompt has {left} placeholder tokens more than media items (given: {given}); give one item for "
                "each placeholder in multi_modal_data, or take the placeholder out of the prompt"
            )

    def _guard(self, name: str, function: Any, *args: Any) -> Any:
        """Call a hook; whatever it raises that is not ours becomes an error that names it."""
        try:
            return function(*args)
        except EngineError:
            raise
        except Exception as e:
            raise self._broken(name, f"{type(e).__name__}: {e}") from e

    def _broken(self, name: str, message: str) -> PluginRuntimeError:
        return PluginRuntimeError(message, plugin=type(self).__module__.partition(".")[0], hook=name)


__all__ = [
    "BaseMultiModalProcessor",
    "ItemMemory",
    "ProcessedItem",
    "ProcessedPrompt",
]
