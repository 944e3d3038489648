"""What a server and its engine process say to each other: msgspec structs, and the bytes of tensors beside them. No pickle.

A message is a frame of MessagePack, and one more for each tensor, array or file in it, which are not copied on their way. What
comes in is checked against the structs below; a message that is none of them is an error, not a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from .gauges import Gauges

FORMAT = 3
"""Changes with these structs. Both ends come from one installation, so another number means that there are two."""
Blob = bytes | bytearray | memoryview
_TENSOR, _ARRAY, _TUPLE, _BYTES = 1, 2, 3, 4
INLINE_BYTES = 16 * 1024
"""Bytes up to this number stand in their message; more are a frame of their own."""
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16,
        torch.int32, torch.int64,
    )
}  # fmt: skip


class Fault(msgspec.Struct, array_like=True):
    """An error of `sdk.errors`; see `faults.py`."""

    kind: str
    message: str
    code: str
    param: str | None = None
    details: dict[str, str | None] = {}
    cause: Fault | None = None


# ---- to the engine --------------------------------------------------------------------------------------------------


class Setup(msgspec.Struct, tag="setup", array_like=True):
    """What to run: the first message.

    Attributes:
        format: `FORMAT` of the sender.
        model: A folder.
        options: See `EngineConfig`.
        records: The plugins, see `core.plugins.record`.
        heartbeat: Seconds of silence after which the engine says that it is well.
    """

    format: int
    model: str
    options: dict[str, Any]
    records: list[dict[str, Any]]
    heartbeat: float


class Pooling(msgspec.Struct, array_like=True):
    """A `PoolingParams`: what is made of a prompt in the place of tokens."""

    task: str
    dimensions: int | None = None
    normalize: bool | None = None
    truncate: int | bool | None = None


class Item(msgspec.Struct, array_like=True):
    """A `ProcessedItem`: its place, its arguments with the kind of their fields, and its embeddings."""

    modality: str
    index: int
    offset: int
    length: int
    mask: bytes
    kwargs: dict[str, tuple[str, Any]]
    embeddings: Any
    key: bytes


class Add(msgspec.Struct, tag="add", array_like=True):
    """A job. Its sequences are known by the numbers from `key` on.

    Attributes:
        params: What differs from `SamplingParams()`.
        remaining: Seconds until its deadline.
        token_types: Which of a pair's texts each token is of.
    """

    key: int
    job_id: str
    token_ids: list[int]
    items: list[Item]
    encoder_item: Item | None
    params: dict[str, Any]
    priority: int
    cache_salt: str
    cross_attention_heads: list[tuple[int, int]]
    remaining: float | None
    pooling: Pooling | None = None
    token_types: tuple[int, ...] = ()


class Abort(msgspec.Struct, tag="abort", array_like=True):
    """End sequences."""

    keys: list[int]


class Stop(msgspec.Struct, tag="stop", array_like=True):
    """End a sequence at a stop string that was found in its text."""

    key: int
    stop_string: str


class ResetCaches(msgspec.Struct, tag="reset", array_like=True):
    """Forget what earlier requests left."""


class Close(msgspec.Struct, tag="close", array_like=True):
    """End."""


# ---- from the engine ------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, tag="hello", array_like=True):
    """The process is there and can be told what to run."""


class Progress(msgspec.Struct, tag="progress", array_like=True):
    """How far loading has come: `done` of `total` of something; total None: nobody knows."""

    what: str
    done: int
    total: int | None


class Loaded(msgspec.Struct, tag="loaded", array_like=True):
    """The engine can serve. `plan` is an `EnginePlan`."""

    plan: dict[str, Any]
    eos_token_ids: list[int]
    gauges: Gauges


class Refused(msgspec.Struct, tag="refused", array_like=True):
    """A job that was never begun."""

    key: int
    fault: Fault


Candidates = list[tuple[int, float, int]]
"""Log-probabilities at one place: token id, logarithm, rank."""


class End(msgspec.Struct, array_like=True):
    """How a sequence ended; the times are those of the system's monotonic clock, which processes share."""

    finish_reason: str | None
    stop_reason: str | int | None
    fault: Fault | None
    arrival_time: float
    first_scheduled_time: float | None
    first_token_time: float | None
    finished_time: float | None
    preemptions: int
    cross_attention: Any = None
    pooled: Any = None


class Detail(msgspec.Struct, array_like=True):
    """What there is to say of a sequence besides its tokens.

    Attributes:
        started: When it was first given a part of a step, and how many of its tokens were at hand by then.
        logprobs: Of its new tokens.
        prompt_logprobs: Of the next tokens of its prompt.
    """

    key: int
    started: tuple[float, int] | None = None
    logprobs: list[Candidates] = []
    prompt_logprobs: list[Candidates] = []
    end: End | None = None


class News(msgspec.Struct, tag="news", array_like=True):
    """What a step has brought, for all sequences at once; with nothing in it, the word that the engine is well.

    Attributes:
        tokens: Sequence → its new tokens.
    """

    tokens: list[tuple[int, list[int]]]
    details: list[Detail]
    gauges: Gauges


class Died(msgspec.Struct, tag="died", array_like=True):
    """The engine could not be started, or cannot go on; its process ends."""

    fault: Fault


# ---- prompts --------------------------------------------------------------------------------------------------------


class Limits(msgspec.Struct, tag="limits", array_like=True):
    """What prompts are held to: see `InputProcessor.keep_to`. `cross_attention`: heads of each layer of it."""

    max_model_len: int
    item_tokens: dict[str, int | None]
    cross_attention: list[int]


class Ask(msgspec.Struct, tag="ask", array_like=True):
    """A prompt to process (to be pooled, with `pooling`), or a conversation (`is_chat`) with the arguments of
    `InputProcessor.process_chat`."""

    is_chat: bool
    value: Any
    arguments: dict[str, Any]
    pooling: Pooling | None = None


class Made(msgspec.Struct, tag="made", array_like=True):
    """A `ProcessedInput`. Of the tools' parser, the form's marker and the tools' names."""

    text: str | None
    token_ids: list[int]
    items: list[Item]
    encoder_item: Item | None
    cache_salt: str
    cross_attention_heads: list[tuple[int, int]]
    tool_form: str | None
    tool_names: list[str]
    token_types: tuple[int, ...] = ()


class Failed(msgspec.Struct, tag="failed", array_like=True):
    """A prompt that cannot be served."""

    fault: Fault


ToEngine = Setup | Add | Abort | Stop | ResetCaches | Close
ToInputs = Setup | Limits | Ask | ResetCaches | Close
FromInputs = Hello | Made | Failed | Died
FromEngine = Hello | Progress | Loaded | Refused | News | Died


# ---- bytes ----------------------------------------------------------------------------------------------------------


class Codec:
    """Writes messages as frames and reads them back. Not to be used by two threads at a time.

    Args:
        reads: The messages that come in.
    """

    def __init__(self, reads: Any) -> None:
        self._frames: list[Blob] = []
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._write)
        self._decoder = msgspec.msgpack.Decoder(reads, ext_hook=self._read)

    def encode(self, message: Any) -> list[Blob]:
        """A message as frames, of which the tensors' are views of their memory.

        Raises:
            TypeError, OverflowError: It holds what cannot be written.
        """
        self._frames = [b""]
        self._frames[0] = self._encoder.encode(message)
        frames, self._frames = self._frames, []
        return frames

    def decode(self, frames: Sequence[Blob]) -> Any:
        """A message. Its tensors are views of the frames.

        Raises:
            msgspec.ValidationError, ValueError: It is none.
        """
        self._frames = list(frames)
        try:
            return self._decoder.decode(self._frames[0])
        finally:
            self._frames = []

    def _write(self, value: Any) -> msgspec.msgpack.Ext:
        if isinstance(value, Tensor):
            held = value.detach().cpu().contiguous()
            data = held.flatten().view(torch.uint8).numpy().data if held.numel() else b""
            return self._block(_TENSOR, data, str(held.dtype).removeprefix("torch."), held.shape)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            array = np.ascontiguousarray(value)
            data = array.reshape(-1).view(np.uint8).data if array.size else b""
            return self._block(_ARRAY, data, array.dtype.str, value.shape)
        if isinstance(value, _Tuple):
            return msgspec.msgpack.Ext(_TUPLE, self._encoder.encode(value.values))
        if isinstance(value, _File):
            return self._block(_BYTES, value.data, "", ())
        raise TypeError(f"a {type(value).__name__} cannot be sent to another process")

    def _block(self, code: int, data: Blob, dtype: str, shape: Sequence[int]) -> msgspec.msgpack.Ext:
        self._frames.append(data)
        return msgspec.msgpack.Ext(code, msgspec.msgpack.encode((len(self._frames) - 1, dtype, tuple(shape))))

    def _read(self, code: int, data: memoryview) -> Any:
        if code == _TUPLE:
            return tuple(msgspec.msgpack.decode(data, ext_hook=self._read))
        index, name, shape = msgspec.msgpack.decode(data, type=tuple[int, str, tuple[int, ...]])
        frame = self._frames[index]
        if code == _BYTES:
            return bytes(frame)
        if code == _TENSOR:
            dtype = _DTYPES[name]
            return (torch.frombuffer(frame, dtype=dtype) if len(frame) else torch.empty(0, dtype=dtype)).view(shape)
        if code == _ARRAY:
            return np.frombuffer(frame, dtype=np.dtype(name)).reshape(shape)
        raise ValueError(f"unknown extension {code}")


class _Tuple:
    """A value whose tuples arrive as tuples: MessagePack knows lists alone."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values = [as_it_is(value) for value in values]


class _File:
    """Bytes that are too many to be copied into a message."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def as_it_is(value: Any) -> Any:
    """A value in the form that arrives as what it is."""
    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, bytes) and len(value) > INLINE_BYTES:
        return _File(value)
    if isinstance(value, tuple):
        return _Tuple(value)
    if isinstance(value, list):
        return [as_it_is(v) for v in value]
    return {k: as_it_is(v) for k, v in value.items()} if isinstance(value, dict) else value
