"""The front door of the engine: whatever form a prompt has, it leaves as checked token ids and media items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from sdk.interfaces import supports_multimodal
from sdk.multimodal.info import InputProcessingContext
from sdk.multimodal.processor import BaseMultiModalProcessor, ProcessedItem, ProcessedPrompt
from sdk.multimodal.updates import PlaceholderRange
from sdk.speech import is_clip

from .blueprint import Blueprint
from .cache.media import ProcessingCache
from .chat import ChatPrompt, ChatRenderer
from .checkpoint import Checkpoint
from .config import EngineConfig
from .errors import (
    ContextLengthError,
    InvalidConfigError,
    InvalidRequestError,
    MediaTooLargeError,
    MediaUnsupportedError,
    PluginContractError,
    PluginRuntimeError,
    shown,
)
from .media.audio_limits import AudioLimits
from .media.door import load_media
from .media.fetch import MediaFetcher
from .plugins import ResolvedPlugin
from .plugins.options import make_options
from .pooling.params import PoolingParams
from .pooling.prompts import needs_own_way, tokenized
from .pooling.tasks import pools, require
from .prompt_forms import as_mapping, check_heads, in_one_part
from .tools import ToolParser

CHARS_PER_TOKEN = 16
"""A prompt with more characters than this for each position is refused before it is tokenized."""
MAX_SALT_CHARS = 256
_TEXTS = ("prompt", "prompt_token_ids", "prompt_embeds")
_PROMPT_KEYS = {*_TEXTS, "multi_modal_data", "mm_processor_kwargs", "cache_salt", "cross_attention_heads"}


class ProcessedInput(NamedTuple):
    """A prompt, ready to be scheduled.

    Attributes:
        text: As the caller gave it, or as the template rendered it; None for ids.
        prompt: Final ids and media items.
        cache_salt: Only prompts of one salt share what was computed for them.
        tools: Reads the calls of the tools that the prompt declares.
        cross_attention_heads: (layer, head) of cross-attention whose weights over the prompt are wanted.
        pooling: What is made of it in the place of tokens; None: tokens.
        token_types: Which of a pair's texts each token is of; empty: all of the first.
    """

    text: str | None
    prompt: ProcessedPrompt
    cache_salt: str = ""
    tools: ToolParser | None = None
    cross_attention_heads: tuple[tuple[int, int], ...] = ()
    pooling: PoolingParams | None = None
    token_types: Sequence[int] = ()


class InputProcessor:
    """Processes prompts for one model.

    Args:
        found: The model, as it is known before its weights are read.
    """

    def __init__(self, found: Blueprint) -> None:
        self.config, self.plugin = found.config, found.plugin
        self.options = make_options(found.plugin, found.config.plugin_options)
        self.max_model_len, self.hidden_size = found.length, found.hidden_size
        self.tokenizer = load_tokenizer(found.config, found.checkpoint, found.plugin)
        text_config = found.checkpoint.hf_config.get_text_config()
        self.vocab_size = int(getattr(text_config, "vocab_size", 0) or len(self.tokenizer))
        self.tasks, self.prompt_embeds = found.capabilities.tasks, found.capabilities.prompt_embeds
        self.room_for_answer = 0 if pools(self.tasks) else 1
        scope = f"{found.plugin.describe()} {found.plugin.architecture.name} {found.checkpoint.folder}"
        self.memory = ProcessingCache(found.config.processing_cache_bytes, scope)
        self.mm_processor = self._make_processor(found.checkpoint)
        self.reserved = self.mm_processor.info.get_placeholder_token_ids() if self.mm_processor else set()
        self.encoder_modality = self.mm_processor.encoder_modality if self.mm_processor else None
        self.chat = self._make_chat()
        self.fetcher = MediaFetcher(self.config.allowed_media_hosts, self.config.allowed_media_networks)
        self._token_texts: dict[int, str] = {}
        self._item_tokens: Mapping[str, int | None] = {}
        self.cross_attention: Sequence[int] = ()
        """Heads of each layer of cross-attention."""

    def keep_to(self, max_model_len: int, item_tokens: Mapping[str, int | None]) -> None:
        """Hold prompts to what memory was planned for.

        Args:
            max_model_len: Longest sequence.
            item_tokens: Modality → most tokens of one item; None: nobody knows.
        """
        self.max_model_len, self._item_tokens = max_model_len, item_tokens

    def _make_processor(self, checkpoint: Checkpoint) -> BaseMultiModalProcessor[Any] | None:
        record = self.plugin.architecture
        if record.processor is None:
            return None
        if record.info is None or record.dummy_inputs is None:
            raise PluginContractError(
                f"{self.plugin.describe()}: {record.name} names a processor; it must name info and dummy_inputs as well",
                plugin=self.plugin.describe(),
            )
        context = InputProcessingContext(
            str(checkpoint.folder),
            checkpoint.hf_config,
            self.tokenizer,
            self.config.mm_processor_kwargs,
            self.options,
        )
        info = self.plugin.load("info")(context)
        made: BaseMultiModalProcessor[Any] = self.plugin.load("processor")(info, self.plugin.load("dummy_inputs")(info))
        return made

    def _make_chat(self) -> ChatRenderer:
        model_cls = self.plugin.load("model")
        placeholder = self._placeholder if supports_multimodal(model_cls) else None
        template = None
        if self.mm_processor is not None:
            template = getattr(self.mm_processor.info.get_hf_processor(), "chat_template", None)
        template = template or getattr(self.tokenizer, "chat_template", None)
        return ChatRenderer(
            self.tokenizer,
            self.config.chat_template,
            template if isinstance(template, str) else (template or {}).get("default"),
            placeholder,
            check_text=self.check_text,
            bos_by_processor=self.mm_processor is not None,
        )

    def _placeholder(self, modality: str, i: int) -> str | None:
        """What stands for an item in a string-only template: as the model says, else as its HF processor wants it."""
        said: str | None = self.plugin.load("model").get_placeholder_str(modality, i)
        if said is None and self.mm_processor is not None:
            return self.mm_processor.dummy_inputs.get_dummy_text({modality: 1})
        return said

    def process(self, prompt: Any) -> ProcessedInput:
        """Process one prompt.

        Args:
            prompt: Text; token ids; or a mapping with `prompt` or `prompt_token_ids`, `multi_modal_data`,
                `mm_processor_kwargs`; of an encoder-decoder model also `{"encoder_prompt": …, "decoder_prompt": …}`, and
                `cross_attention_heads` to see how these attend over the clip.

        Raises:
            RequestError: It cannot be served; the message says why.
        """
        require("generate", self.tasks, self.plugin.architecture.name)
        return self._process(as_mapping(prompt))

    def process_pooled(self, prompt: Any, params: PoolingParams) -> ProcessedInput:
        """Process one prompt that a model which pools makes something of.

        Args:
            prompt: As `process` takes it; of a pair of texts `{"prompt": …, "text_pair": …}`.
            params: What is made of it.

        Raises:
            RequestError: It cannot be served, or the model does not pool so.
        """
        require(params.task, self.tasks, self.plugin.architecture.name)
        form = as_mapping(prompt)
        if not needs_own_way(form, params):
            return self._process(form)._replace(pooling=params)
        made, types = tokenized(self, form, params)
        return ProcessedInput(form.get("prompt"), self._checked(made), pooling=params, token_types=types)

    @property
    def longest_prompt(self) -> int:
        """Most tokens of a prompt."""
        return self.max_model_len - self.room_for_answer

    def _process(self, given_form: dict[str, Any]) -> ProcessedInput:
        prompt = in_one_part(given_form)
        if prompt is not given_form and self.encoder_modality is None:
            raise InvalidRequestError(
                f"{self.plugin.architecture.name} has no encoder of its own: give it a prompt in one part",
                param="prompt",
            )
        unknown = set(prompt) - _PROMPT_KEYS
        if unknown or sum(name in prompt for name in _TEXTS) != 1:
            raise InvalidRequestError(
                "a prompt has 'prompt', 'prompt_token_ids' or 'prompt_embeds', and may have 'multi_modal_data', "
                "'mm_processor_kwargs', 'cache_salt' and 'cross_attention_heads'; "
                f"got: {', '.join(map(str, prompt)) or 'nothing'}",
                param="prompt",
            )
        salt = check_salt(prompt.get("cache_salt", ""))
        heads = check_heads(prompt.get("cross_attention_heads", ()), self.cross_attention)
        if "prompt_embeds" in prompt:
            return ProcessedInput(None, self._embedded(prompt, salt), salt)
        text = prompt.get("prompt")
        given = self.check_text(text) if text is not None else self.check_ids(prompt["prompt_token_ids"])
        media = self._open_media(prompt.get("multi_modal_data") or {})
        kwargs = prompt.get("mm_processor_kwargs") or {}
        if not isinstance(kwargs, Mapping) or (kwargs and self.mm_processor is None):
            raise InvalidRequestError(
                "mm_processor_kwargs maps names to values, for a model that takes media", param="mm_processor_kwargs"
            )
        return ProcessedInput(text, self._finish(given, media, kwargs, salt), salt, cross_attention_heads=heads)

    def process_chat(
        self, messages: Sequence[Mapping[str, Any]], *, cache_salt: str = "", **template_kwargs: Any
    ) -> ProcessedInput:
        """Render a conversation and process it: see `ChatRenderer.render`."""
        if "generate" not in self.tasks:
            raise InvalidRequestError(
                f"{self.plugin.architecture.name} is for {' and '.join(self.tasks)} alone: it does not chat",
                code="unsupported_task",
                param="messages",
            )
        salt = check_salt(cache_salt)
        rendered: ChatPrompt = self.chat.render(messages, **template_kwargs)
        media = self._open_media(rendered.media)
        return ProcessedInput(rendered.text, self._finish(rendered.token_ids, media, {}, salt), salt, rendered.tools)

    def _embedded(self, prompt: Mapping[str, Any], salt: str) -> ProcessedPrompt:
        """A prompt that comes as embeddings: an item that takes all of its places. The ids there are zeros."""
        embeds, param = prompt["prompt_embeds"], "prompt_embeds"
        if "multi_modal_data" in prompt or "mm_processor_kwargs" in prompt:
            raise InvalidRequestError(
                "prompt_embeds hold the whole prompt: put the media's embeddings there", param=param
            )
        if not self.prompt_embeds or self.encoder_modality is not None:
            raise InvalidRequestError(f"{self.plugin.architecture.name} takes no prompt_embeds", param=param)
        if not isinstance(embeds, Tensor) or not embeds.is_floating_point() or embeds.ndim != 2 or not len(embeds):
            shape = f"{embeds.dtype} {tuple(embeds.shape)}" if isinstance(embeds, Tensor) else type(embeds).__name__
            raise InvalidRequestError(
                f"prompt_embeds must be a float tensor (tokens, {self.hidden_size}), not {shape}", param=param
            )
        embeds = embeds.detach().clone()
        place = PlaceholderRange("prompt", 0, 0, len(embeds), np.ones(len(embeds), dtype=np.bool_))
        key = self.memory.key("prompt", embeds, salt)
        made = ProcessedPrompt([0] * len(embeds), (ProcessedItem({}, place, embeds, key),))
        return self._checked(made)

    def token_text(self, token: int) -> str:
        """One token as text by itself."""
        if token not in self._token_texts:
            text = self.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            self._token_texts[token] = str(text)
        return self._token_texts[token]

    def _open_media(self, data: Any) -> dict[str, Any]:
        """Open every item, within the engine's own limit for each modality."""
        if not isinstance(data, Mapping):
            raise InvalidRequestError("multi_modal_data maps a modality to its items", param="multi_modal_data")
        data = {m: v for m, v in data.items() if v is not None and not (isinstance(v, (list, tuple)) and not v)}
        taken = self.mm_processor.info.get_supported_mm_limits() if self.mm_processor is not None else {}
        for modality, value in data.items():
            if modality not in taken:
                takes = f"takes no {modality}" if taken else "takes text alone"
                raise MediaUnsupportedError(
                    f"{self.plugin.architecture.name} {takes}, but the prompt has {modality} data",
                    code="unsupported_modality",
                    param=f"multi_modal_data.{modality}",
                )
            limit = self.config.limit_mm_per_prompt.get(modality)
            count = _count(value)
            if limit == 0:
                raise MediaUnsupportedError(
                    f"this engine was started without {modality}s (limit_mm_per_prompt={{{modality!r}: 0}}); allow some there",
                    code="unsupported_modality",
                    param=f"multi_modal_data.{modality}",
                )
            if limit is not None and count > limit:
                raise InvalidRequestError(
                    f"{count} {modality} items in one prompt, but the limit is {limit}; "
                    f'raise it with limit_mm_per_prompt={{"{modality}": {count}}}',
                    code="too_many_items",
                    param=f"multi_modal_data.{modality}",
                )
        if not data or self.mm_processor is None:
            return {}
        rate = self.mm_processor.info.get_audio_sample_rate() if "audio" in data else None
        limits = AudioLimits(seconds=self.config.max_audio_seconds)
        opened: dict[str, Any] = {"sample_rate": rate, "audio_limits": limits, "fetcher": self.fetcher}
        return {m: load_media(m, v, **opened) for m, v in data.items()}

    def check_text(self, text: Any, *, cut: bool = False) -> str:
        """Refuse, before it is tokenized, what is no text or too much of it; `cut` too much off instead."""
        if not isinstance(text, str):
            raise InvalidRequestError(f"prompt must be text, not a {type(text).__name__}", param="prompt")
        if cut:
            text = text[: self.max_model_len * CHARS_PER_TOKEN]
        if len(text) > self.max_model_len * CHARS_PER_TOKEN:
            raise ContextLengthError(
                f"the prompt has {len(text)} characters; at {self.max_model_len} tokens of context, "
                f"at most {self.max_model_len * CHARS_PER_TOKEN} are read",
                param="prompt",
            )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as e:
            raise InvalidRequestError(
                f"the prompt holds half a character ({text[e.start]!r} at {e.start}); decode its source as UTF-8",
                param="prompt",
            ) from None
        return str(text)

    def check_ids(self, ids: Any) -> list[int]:
        """Refuse what are no token ids of this model."""
        if hasattr(ids, "tolist"):
            ids = ids.tolist()
        if not isinstance(ids, Sequence) or isinstance(ids, (str, bytes)):
            raise InvalidRequestError("prompt_token_ids must be a list of whole numbers", param="prompt_token_ids")
        for i, token in enumerate(ids):
            if isinstance(token, bool) or not isinstance(token, Integral):
                raise InvalidRequestError(
                    f"prompt_token_ids[{i}] is {shown(token)}, not a whole number",
                    code="invalid_token",
                    param="prompt_token_ids",
                )
            if not 0 <= int(token) < self.vocab_size and token not in self.reserved:
                raise InvalidRequestError(
                    f"prompt_token_ids[{i}] is {shown(token)}, but this model's ids go from 0 to {self.vocab_size - 1}",
                    code="invalid_token",
                    param="prompt_token_ids",
                )
        return [int(token) for token in ids]

    def _finish(
        self, given: str | list[int], media: Mapping[str, Any], kwargs: Mapping[str, Any], salt: str
    ) -> ProcessedPrompt:
        if self.mm_processor is None:
            ids = self.tokenizer(given, verbose=False)["input_ids"] if isinstance(given, str) else given
            prompt = ProcessedPrompt(list(ids))
        else:
            try:
                prompt = self.mm_processor.apply(given, media, kwargs, memory=self.memory, salt=salt)
            except PluginRuntimeError as e:
                e.plugin = self.plugin.describe()
                raise
            prompt = self._held_once(prompt)
        if not prompt.prompt_token_ids or (given == "" and not media):
            raise InvalidRequestError("the prompt is empty", param="prompt")
        return self._checked(prompt)

    def _held_once(self, prompt: ProcessedPrompt) -> ProcessedPrompt:
        """The items as they are remembered: a request needs no tensors of its own beside those."""

        def held(item: ProcessedItem) -> ProcessedItem:
            known = self.memory.peek(item.key) if item.embeddings is None else None
            return item if known is None else replace(item, kwargs=known)

        encoder_item = None if prompt.encoder_item is None else held(prompt.encoder_item)
        return replace(prompt, items=tuple(map(held, prompt.items)), encoder_item=encoder_item)

    def _checked(self, prompt: ProcessedPrompt) -> ProcessedPrompt:
        """Refuse what would break a step, whatever made it."""
        self._check_embeddings(prompt)
        self._check_sizes(prompt)
        self._check_vocabulary(prompt)
        if len(prompt.prompt_token_ids) > self.longest_prompt:
            advice = (
                " (prompt and output together); shorten it" if self.room_for_answer else "; cut it with truncate=True"
            )
            raise ContextLengthError(
                f"the prompt has {len(prompt.prompt_token_ids)} tokens, but this engine's sequences hold {self.max_model_len}"
                f"{advice} or raise max_model_len",
                param="prompt",
            )
        return prompt

    def _check_sizes(self, prompt: ProcessedPrompt) -> None:
        """No item is larger than the worst that its plugin foretold, by which memory was planned."""
        for item in prompt.items:
            place, most = item.placeholder, self._item_tokens.get(item.modality)
            if most is not None and item.embeddings is None and place.length > most:
                raise MediaTooLargeError(
                    f"{item.modality} {place.index} takes {place.length} tokens, but this engine planned for at most {most} "
                    f"({self.plugin.describe()} says so: get_mm_max_tokens_per_item); give a smaller one",
                    code="item_too_large",
                    param=f"multi_modal_data.{item.modality}",
                )

    def _check_vocabulary(self, prompt: ProcessedPrompt) -> None:
        """Tokenizers may have tokens that their model was not trained with; looking one up would break the step."""
        ids = np.array(prompt.prompt_token_ids)
        outside = ids >= self.vocab_size
        for item in prompt.items:
            place = item.placeholder
            outside[place.offset : place.offset + place.length] &= ~place.mask
        if outside.any():
            token = int(ids[outside.argmax()])
            raise InvalidRequestError(
                f"the prompt has {self.tokenizer.convert_ids_to_tokens(token)!r}, which the tokenizer gives the id {token}, "
                f"but this model's ids go from 0 to {self.vocab_size - 1}; leave it out",
                code="invalid_token",
                param="prompt",
            )

    def _check_embeddings(self, prompt: ProcessedPrompt) -> None:
        for item in prompt.items:
            e = item.embeddings
            if e is not None and (e.shape[-1] != self.hidden_size or not e.isfinite().all()):
                what = (
                    f"width {e.shape[-1]}, not {self.hidden_size}"
                    if e.shape[-1] != self.hidden_size
                    else "NaN or infinity"
                )
                place = item.placeholder
                whose = "prompt_embeds" if item.modality == "prompt" else f"embeddings of {item.modality} {place.index}"
                param = "prompt_embeds" if item.modality == "prompt" else f"multi_modal_data.{item.modality}"
                raise InvalidRequestError(f"{whose} have {what}", param=param)


def check_salt(salt: Any) -> str:
    """A cache salt as text.

    Raises:
        InvalidRequestError: It is no text, or too long.
    """
    if not isinstance(salt, str) or len(salt) > MAX_SALT_CHARS:
        raise InvalidRequestError(
            f"cache_salt is a text of at most {MAX_SALT_CHARS} characters, not {shown(salt)}", param="cache_salt"
        )
    return salt


def _count(value: Any) -> int:
    """How many items a caller gave for one modality, in whatever form."""
    if isinstance(value, Mapping):
        return max((_count(v) for v in value.values()), default=1)
    if isinstance(value, Tensor):
        return value.shape[0] if value.ndim > 2 and value.is_floating_point() else 1
    return len(value) if isinstance(value, (list, tuple)) and not is_clip(value) else 1


def load_tokenizer(config: EngineConfig, checkpoint: Checkpoint, plugin: ResolvedPlugin) -> Any:
    """The HF tokenizer of the model, or the one that the user named; read by the plugin where it has its own way."""
    from transformers import AutoTokenizer

    source = config.tokenizer or str(checkpoint.folder)
    try:
        if plugin.has("tokenizer"):
            return plugin.load("tokenizer")(source)
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as e:
        raise InvalidConfigError(
            f"no tokenizer can be loaded from {source!r}: {e!s:.300}; give one with tokenizer=…", param="tokenizer"
        ) from e


__all__ = ["InputProcessor", "ProcessedInput", "load_tokenizer"]
