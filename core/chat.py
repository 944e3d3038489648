"""Chat messages → token ids that know where they come from.

The model's template is rendered once and tokenized once. What users typed must never become a control or placeholder token, so
added-token strings in their text are taken out before rendering; when the text has any, the template's own control tokens
get names nobody can type, in a copy of the tokenizer that knows only those. Clean text takes the ordinary tokenizer, byte for
byte what transformers would do.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InvalidConfigError, InvalidRequestError
from .tools import ToolParser, choose_parser

MAX_MESSAGES = 4096
_TEXT_TYPES = ("text", "input_text", "output_text")
_MEDIA_TYPES = {
    "image": ("image", ("image", "image_url", "url", "path", "base64")),
    "image_url": ("image", ("image_url", "url")),
    "input_image": ("image", ("image_url", "url")),
    "image_embeds": ("image", ("image_embeds",)),
    "audio": ("audio", ("audio", "audio_url", "url", "path", "base64")),
    "audio_url": ("audio", ("audio_url", "url")),
    "input_audio": ("audio", ("input_audio",)),
}
"""Content part type → modality, and the keys under which the item may stand."""


class ChatPrompt(NamedTuple):
    """A rendered conversation.

    Attributes:
        text: What the template rendered, users' text put back.
        token_ids: Its ids: placeholders stand only where a media part was.
        media: Modality → items as they were given, in the order of the parts.
        tools: Reads the calls of the tools that were declared.
    """

    text: str
    token_ids: list[int]
    media: dict[str, list[Any]]
    tools: ToolParser | None = None


class ChatRenderer:
    """Renders conversations for one model.

    Args:
        tokenizer: The HF tokenizer.
        template: A Jinja template, a path to one, or None for `model_template`.
        model_template: The template that comes with the model, if any.
        placeholder: (modality, index from 1) → what stands for the item in a string-only template.
        check_text: Refuses a rendered text that cannot be tokenized.
        bos_by_processor: Whether the special tokens of an ordinary tokenization are added when the template did not
            write them, as HF's processors do (its tokenizers do not).

    Attributes:
        time_limit: Entered around each rendering, to end one that takes too long where its process can.
    """

    time_limit: Callable[[], AbstractContextManager[object]] = nullcontext

    def __init__(
        self,
        tokenizer: Any,
        template: str | None,
        model_template: str | None,
        placeholder: Callable[[str, int], str | None] | None = None,
        *,
        check_text: Callable[[str], str] = str,
        bos_by_processor: bool = False,
    ) -> None:
        self.check_text = check_text
        self.tokenizer, self.placeholder, self.bos_by_processor = tokenizer, placeholder, bos_by_processor
        self.template = _read_template(template) if template is not None else model_template

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, chat_template: str | None = None, **template_kwargs: Any
    ) -> ChatPrompt:
        """Render one conversation and tokenize it.

        Args:
            messages: `{"role": …, "content": text or parts}` in HF's or OpenAI's form.
            chat_template: Jinja for this conversation alone.
            template_kwargs: Passed to the template, e.g. `add_generation_prompt`. `tools`, in OpenAI's form or as
                functions, must be known to it.

        Raises:
            InvalidRequestError: A message, part or tool is malformed, or the template refuses the conversation.
        """
        if chat_template is not None:
            return self._with(chat_template).render(messages, **template_kwargs)
        if self.template is None:
            raise InvalidRequestError(
                "this model has no chat template: give it one with --chat-template or LLM(chat_template=…), or continue a text "
                "with /v1/completions or generate()",
                code="template_error",
                param="chat_template",
            )
        guard = _Guard(self.added_tokens)
        parser: ToolParser | None = None
        if template_kwargs.get("tools"):
            parser = choose_parser(self.template, template_kwargs["tools"], self.tokenizer)
            template_kwargs["tools"] = guard.escape_all(template_kwargs["tools"])
        media: dict[str, list[Any]] = {}
        prepared = _prepare(messages, guard, media, self._string_content)
        rendered = self._apply(prepared, **template_kwargs)
        text = self.check_text(guard.restore(rendered))
        special = self.bos_by_processor and not (self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token))
        if not guard.found:
            ids = self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
            return ChatPrompt(text, list(ids), media, parser)
        return ChatPrompt(text, self._guarded.encode(rendered, guard, special), media, parser)

    def _with(self, template: Any) -> ChatRenderer:
        """The same with another template."""
        if not isinstance(template, str):
            raise InvalidRequestError(f"chat_template is Jinja, not a {type(template).__name__}", param="chat_template")
        twin = copy(self)
        twin.template = template
        twin.__dict__.pop("_string_content", None)  # what the other template takes
        return twin

    @cached_property
    def added_tokens(self) -> dict[str, int]:
        """Every string that the tokenizer turns into one token wherever it stands → its id."""
        return {str(t): i for i, t in self.tokenizer.added_tokens_decoder.items()}

    @cached_property
    def _guarded(self) -> _GuardedTokenizer:
        return _GuardedTokenizer(self.tokenizer, self.added_tokens)

    @cached_property
    def _string_content(self) -> Callable[[str, int], str | None] | None:
        """None when the template takes lists of parts itself; else what writes a part's placeholder."""
        probe = [{"role": "user", "content": [{"type": "text", "text": "probe-text"}]}]
        try:
            out = self._apply(probe)
        except InvalidRequestError:
            return self.placeholder or (lambda modality, i: None)
        takes_parts = "probe-text" in out and "'type'" not in out and '"type"' not in out
        return None if takes_parts else (self.placeholder or (lambda modality, i: None))

    def _apply(self, messages: list[dict[str, Any]], **kwargs: Any) -> str:
        try:
            with self.time_limit():
                out = self.tokenizer.apply_chat_template(
                    messages, chat_template=self.template, tokenize=False, **{"add_generation_prompt": True, **kwargs}
                )
        except Exception as e:  # a template may raise whatever it likes
            raise InvalidRequestError(
                f"the chat template refuses this conversation: {type(e).__name__}: {e!s:.200}", code="template_error"
            ) from e
        return str(out)


def _read_template(template: str) -> str:
    """A template given by the user: Jinja itself, or a path to it."""
    if "{" in template or "\n" in template:
        return template
    path = Path(template).expanduser()
    if path.is_file():
        return path.read_text(encoding="utf-8")
    raise InvalidConfigError(
        f"chat_template={template!r} is no Jinja template (it has no braces), and there is no such file",
        param="chat_template",
    )


class _Guard:
    """Takes added-token strings out of users' text and puts them back."""

    def __init__(self, added_tokens: Mapping[str, int]) -> None:
        self.nonce = secrets.token_hex(8)
        self.found: list[str] = []
        longest_first = sorted((t for t in added_tokens if t), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._marks = re.compile(f"\ue000{self.nonce}-(\\d+)\ue001")

    def escape(self, text: str) -> str:
        """The text with a mark in the place of each added-token string."""
        if self._pattern is None:
            return text

        def mark(match: re.Match[str]) -> str:
            self.found.append(match[0])
            return f"\ue000{self.nonce}-{len(self.found) - 1}\ue001"

        return self._pattern.sub(mark, text)

    def escape_all(self, value: Any) -> Any:
        """`escape` for every text in a message's other fields, such as a name or the arguments of a tool call."""
        if isinstance(value, str):
            return self.escape(value)
        if isinstance(value, Mapping):
            return {k: self.escape_all(v) for k, v in value.items()}
        return [self.escape_all(v) for v in value] if isinstance(value, (list, tuple)) else value

    def restore(self, text: str) -> str:
        """The marks replaced by what they stand for."""
        return self._marks.sub(lambda m: self.found[int(m[1])], text) if self.found else text

    def split(self, text: str, replace: Callable[[str], str]) -> str:
        """Replace added-token strings that the template wrote, leave the marks."""
        return self._pattern.sub(lambda m: replace(m[0]), text) if self._pattern is not None else text


class _GuardedTokenizer:
    """A copy of a tokenizer whose added tokens answer only to aliases that nobody can type."""

    def __init__(self, tokenizer: Any, added_tokens: Mapping[str, int]) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InvalidRequestError(
                "the text holds a string that this model's tokenizer reserves, and a tokenizer of this kind cannot escape it",
                code="reserved_token",
            )
        from tokenizers import AddedToken, Tokenizer

        description = json.loads(backend.to_str())
        original = {t["content"]: t for t in description["added_tokens"]}
        description["added_tokens"] = []
        self.tokenizer = Tokenizer.from_str(json.dumps(description))
        nonce = secrets.token_hex(8)
        self.aliases = {token: f"\ue002{nonce}-{i}\ue003" for i, token in enumerate(added_tokens)}
        for token, alias in self.aliases.items():
            flags = original.get(token, {})
            kept = {k: bool(flags.get(k, False)) for k in ("lstrip", "rstrip")}
            self.tokenizer.add_special_tokens([AddedToken(alias, normalized=False, special=True, **kept)])
        self.ids = {self.tokenizer.token_to_id(alias): added_tokens[token] for token, alias in self.aliases.items()}
        self.reserved = set(added_tokens.values())

    def encode(self, rendered: str, guard: _Guard, add_special_tokens: bool) -> list[int]:
        """Ids of a rendered conversation whose users' added-token strings are still marks."""
        text = guard.restore(guard.split(rendered, self.aliases.__getitem__))
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        if any(i in self.reserved for i in ids):
            raise InvalidRequestError(
                f"the text holds a string that the model reserves ({guard.found[0]!r}) and that cannot be escaped",
                code="reserved_token",
            )
        out = [self.ids.get(i, i) for i in ids]
        if add_special_tokens:
            # What the post-processor adds around any text, told by an empty one.
            probe = self.tokenizer.encode("", add_special_tokens=True).ids
            out = [*probe, *out]
        return out


def _prepare(
    messages: Sequence[Mapping[str, Any]],
    guard: _Guard,
    media: dict[str, list[Any]],
    placeholder: Callable[[str, int], str | None] | None,
) -> list[dict[str, Any]]:
    """Messages with escaped text; media taken out into `media`; parts joined to text for a string-only template."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InvalidRequestError("messages must be a non-empty list of {'role': …, 'content': …}", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise InvalidRequestError(f"{len(messages)} messages are over the limit of {MAX_MESSAGES}", param="messages")
    out = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InvalidRequestError("a message needs a role and content", param=f"messages.{i}")
        content = message.get("content")
        others = {key: guard.escape_all(value) for key, value in message.items() if key != "content"}
        if isinstance(content, str):
            out.append({**others, "content": guard.escape(content)})
            continue
        if not isinstance(content, Sequence):
            if content is None and message.get("tool_calls"):
                out.append({**others, "content": None})
                continue
            raise InvalidRequestError("content must be text or a list of parts", param=f"messages.{i}.content")
        parts = [_part(p, guard, media, f"messages.{i}.content.{j}") for j, p in enumerate(content)]
        out.append({**others, "content": parts if placeholder is None else _joined(parts, placeholder, media)})
    return out


def _part(part: Any, guard: _Guard, media: dict[str, list[Any]], where: str) -> dict[str, Any]:
    """One content part, in HF's form; a media item goes to `media`."""
    if isinstance(part, str):
        return {"type": "text", "text": guard.escape(part)}
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in _TEXT_TYPES and isinstance(part.get("text"), str):
        return {"type": "text", "text": guard.escape(part["text"])}
    if kind not in _MEDIA_TYPES:
        known = ", ".join(("text", *_MEDIA_TYPES))
        raise InvalidRequestError(f"unknown content part {kind!r}; known: {known}", param=where)
    modality, keys = _MEDIA_TYPES[kind]
    key = next((k for k in keys if part.get(k) is not None), None)
    if key is None:
        raise InvalidRequestError(f"this {kind} part has no {' or '.join(keys[:2])}", param=where)
    value = part[key]
    if isinstance(value, Mapping) and "url" in value:
        value = value["url"]
    elif isinstance(value, Mapping) and "data" in value:  # OpenAI's input_audio; the bytes tell the format
        key, value = "base64", value["data"]
    if key == "base64" and isinstance(value, str) and value.lstrip()[:5].lower() != "data:":
        value = f"data:;base64,{value}"
    media.setdefault(modality, []).append(value)
    return {"type": modality, "_index": len(media[modality])}


def _joined(
    parts: Sequence[Mapping[str, Any]], placeholder: Callable[[str, int], str | None], media: Mapping[str, list[Any]]
) -> str:
    """Parts as one text for a template that takes only text, in the order given."""
    pieces = []
    for part in parts:
        if part["type"] == "text":
            pieces.append(part["text"])
            continue
        mark = placeholder(part["type"], part["_index"])
        if mark is None:
            raise InvalidRequestError(
                f"this model's chat template takes no {part['type']}", code="unsupported_modality", param="messages"
            )
        if mark:  # some models' media stand in no text
            pieces.append(mark)
    return "\n".join(pieces)
