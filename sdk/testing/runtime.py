"""The engine, as the kit sees it: a small protocol that `core` provides under the entry point `engine.v1.runtime`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .._api import ENTRY_POINT_GROUP
from ..errors import PluginConflictError, PluginMissingError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..context import Resolver
    from ..multimodal.processor import ProcessedPrompt
    from ..pooling import PoolingTask
    from ..quantization import QuantizationConfig
    from ..spec import Architecture, Capabilities

GROUP = f"{ENTRY_POINT_GROUP}.runtime"
Prompt = str | Sequence[int] | Mapping[str, Any]
"""Text, token ids, or a mapping with `prompt` or `prompt_token_ids` and `multi_modal_data`."""


@dataclass(frozen=True)
class Metadata:
    """What a plugin's distribution says of it, read without importing it.

    Attributes:
        distribution: The distribution.
        version: Its version.
        module: The plugin module that the entry points name.
        architectures: The names of the entry points.
        model_types: The names of the entry points of the other group.
    """

    distribution: str
    version: str
    module: str
    architectures: frozenset[str]
    model_types: frozenset[str]


@dataclass(frozen=True)
class Settings:
    """How the kit opens a checkpoint; whatever they are, the answers are the same.

    Attributes:
        page_size: Tokens in a page of K/V.
        step_tokens: Most tokens computed in a step: longer prompts come in chunks.
        step_sequences: Most sequences in a step.
        pool_tokens: How many tokens the pages hold, a multiple of `page_size`; None: as many as there is need of.
        caching: Whether anything is kept for requests to come: pages of equal beginnings, embeddings, processed media.
        quantization: The scheme that its weights are made smaller by; None: none.
        interrupted: Whether urgent prompts come in between and take the places of those that run.
    """

    page_size: int = 16
    step_tokens: int = 2048
    step_sequences: int = 8
    pool_tokens: int | None = None
    caching: bool = False
    quantization: str | None = None
    interrupted: bool = False


DEFAULT = Settings()
"""Exact, and with pages that the kit's prompts outgrow."""


@dataclass(frozen=True)
class Completion:
    """The greedy answer to a prompt.

    Attributes:
        token_ids: Its tokens; end tokens do not end it.
        logprobs: The natural logarithm of each one's probability.
        cached_tokens: How many tokens of the prompt were not computed, since their pages were at hand.
        preemptions: How often it lost its pages.
        text: What the tokens say.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    cached_tokens: int = 0
    preemptions: int = 0
    text: str = ""


class Plugin(Protocol):
    """The plugin that answers an architecture."""

    @property
    def architecture(self) -> Architecture:
        """Its record."""

    def describe(self) -> str:
        """Name and version."""

    def has(self, part: str) -> bool:
        """Whether it names a part; imports nothing."""

    def load(self, part: str) -> Any:
        """Import a part."""

    def capabilities(self, config_view: Any) -> Capabilities:
        """What the model can do, told from its config."""


class OpenModel(Protocol):
    """A checkpoint, loaded into an engine in float32."""

    def process(self, prompt: Prompt) -> ProcessedPrompt:
        """A prompt as the engine's front door makes it: ids and media items."""

    def logits(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """Logits at every position of each prompt, `(tokens, vocab)`; all prompts in one batch."""

    def generate(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        """The greedy answer to each prompt, all of them at once; exactly `max_tokens` tokens each."""

    @property
    def has_chat_template(self) -> bool:
        """Whether it can be asked in messages."""

    def chat(self, messages: Sequence[Mapping[str, Any]], max_tokens: int) -> Completion:
        """The greedy answer to a conversation in OpenAI's form; exactly `max_tokens` tokens."""

    def transcribe(self, clip: bytes) -> str:
        """What is said in a clip, given as the bytes of a file."""

    def pool(self, prompts: Sequence[Prompt], task: PoolingTask) -> list[Tensor]:
        """What a model that pools makes of each prompt: an embedding, probabilities of classes, or a score alone."""

    def close(self) -> None:
        """Free it."""


class Server(Protocol):
    """A checkpoint behind HTTP in OpenAI's form, served from processes of its own."""

    @property
    def url(self) -> str:
        """Where it is, such as `http://127.0.0.1:40123`."""

    @property
    def model(self) -> str:
        """What clients call the checkpoint."""

    @property
    def alive(self) -> bool:
        """Whether its process runs."""

    @property
    def log(self) -> str:
        """The last lines that it wrote."""

    def close(self) -> None:
        """End it."""


@runtime_checkable
class Runtime(Protocol):
    """What the kit needs of an engine."""

    def architectures(self, name: str) -> list[str]:
        """The architectures that a name stands for: its own, or all those of a distribution; none for a scheme's.

        Raises:
            PluginMissingError: Nothing installed bears the name.
        """

    def metadata(self, architecture: str) -> Metadata | None:
        """What the metadata of the architecture's plugin says; None for one that was registered in this process."""

    def resolve(self, architecture: str) -> Plugin:
        """The plugin that answers an architecture."""

    def schemes(self, name: str) -> list[str]:
        """The quantization schemes that a name stands for: its own, or all those of a distribution; often none."""

    def scheme(self, name: str) -> type[QuantizationConfig]:
        """A quantization scheme, by its name.

        Raises:
            PluginError: Nobody brings it, or it cannot be used.
        """

    def scheme_plugin(self, name: str) -> str:
        """Name and version of the distribution that brings a scheme."""

    def resolver(self) -> Resolver:
        """How `ctx.build` finds the parts of a model."""

    def build(self, folder: Path) -> nn.Module:
        """A checkpoint's model (or component) as the engine builds it, before its weights are loaded."""

    def open(self, folder: Path, settings: Settings = DEFAULT) -> OpenModel:
        """Load a checkpoint."""

    def serve(self, folder: Path) -> Server:
        """Serve a checkpoint in float32 on a free port of this machine."""


def find_runtime() -> Runtime:
    """The installed runtime.

    Raises:
        PluginMissingError: None is installed.
        PluginConflictError: Several are.
    """
    import importlib_metadata

    found = {entry.value: entry for entry in importlib_metadata.entry_points(group=GROUP)}
    if not found:
        raise PluginMissingError(f"no engine is installed that the kit can drive: nothing provides {GROUP}")
    if len(found) > 1:
        raise PluginConflictError(f"{GROUP} is provided by {' and '.join(sorted(found))}; uninstall all but one")
    runtime: Runtime = next(iter(found.values())).load()()
    return runtime
