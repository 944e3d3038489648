"""What the laws are about: one architecture, its plugin, and its tiny checkpoint in every form; made when first used."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .decoder_prompts import decoder_inputs, tokenize
from .law import NotApplicable
from .probe import Probe, probe
from .runtime import Completion, Metadata, OpenModel, Plugin, Prompt, Runtime, Server, Settings
from .samples import Sample, describe_item, items_of
from .sizes import Meter
from .source import package_files

if TYPE_CHECKING:
    from ..multimodal.processor import BaseMultiModalProcessor, ProcessedPrompt
    from ..spec import Architecture, Capabilities
    from ..weights import LoadReport

SEED = 0


class Subject:
    """One architecture under test.

    Args:
        architecture: The HF architecture string.
        runtime: The engine.

    Attributes:
        trying: The input that a law tries, said where something is raised.
    """

    def __init__(self, architecture: str, runtime: Runtime) -> None:
        self.architecture, self.runtime = architecture, runtime
        self.trying = ""
        self._work = tempfile.TemporaryDirectory(prefix="engine-verify-", ignore_cleanup_errors=True)

    def close(self) -> None:
        """Close what is open and remove what was written."""
        for name in {"opened", "server"} & self.__dict__.keys():
            getattr(self, name).close()
        self.__dict__ = {k: v for k, v in self.__dict__.items() if k in ("architecture", "runtime", "trying", "_work")}
        self._work.cleanup()

    def describe(self) -> str:
        """The plugin's name and version, as far as they are known."""
        said = self.runtime.metadata(self.architecture)
        return f"{said.distribution} {said.version}" if said is not None else "in-process"

    # ---- the plugin -------------------------------------------------------------------------------------------------

    @cached_property
    def metadata(self) -> Metadata:
        """What the distribution says."""
        found = self.runtime.metadata(self.architecture)
        if found is None:
            raise NotApplicable(f"{self.architecture} was registered in this process: it has no metadata and no module")
        return found

    @cached_property
    def probe(self) -> Probe:
        """What importing the plugin module by itself showed."""
        return probe(self.metadata.module)

    @cached_property
    def sources(self) -> list[Path]:
        """The files of the plugin's package."""
        return package_files(self.metadata.module)

    @cached_property
    def plugin(self) -> Plugin:
        """The plugin, resolved."""
        return self.runtime.resolve(self.architecture)

    @property
    def record(self) -> Architecture:
        """Its record."""
        return self.plugin.architecture

    def require(self, kind: str) -> None:
        """Stop a law that is not about this kind: `"model"`, `"component"` or `"media"`."""
        if kind in ("model", "component") and self.record.kind != kind:
            raise NotApplicable(f"{self.architecture} is a {self.record.kind}, not a {kind}")
        if kind == "media":
            self.require("model")
            if not self.plugin.has("processor"):
                raise NotApplicable(f"{self.architecture} takes text alone")

    # ---- the tiny checkpoint ----------------------------------------------------------------------------------------

    def folder_for(self, name: str) -> Path:
        """An empty folder of this name that is removed at the end."""
        path = Path(self._work.name) / name
        path.mkdir()
        return path

    @cached_property
    def folder(self) -> Path:
        """The tiny checkpoint."""
        path = self.folder_for("tiny")
        self.plugin.load("tiny")(SEED, path)
        return path

    @cached_property
    def config(self) -> Any:
        """Its config, parsed by transformers."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.folder)

    @property
    def text_config(self) -> Any:
        """The part of the config that is the language model's."""
        return self.config.get_text_config()

    @property
    def seq_len(self) -> int:
        """How many positions it holds."""
        names = ("max_position_embeddings", "max_target_positions")
        return int(next((n for n in (getattr(self.text_config, name, None) for name in names) if n), 2048))

    @cached_property
    def capabilities(self) -> Capabilities:
        """What the plugin says that it can do."""
        from ..config_view import ConfigView

        raw = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return self.plugin.capabilities(ConfigView(raw))

    @cached_property
    def options(self) -> Any:
        """Its plugin's own options where nobody gives any; None where it declares none."""
        return self.plugin.load("options")() if self.plugin.has("options") else None

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer, as transformers loads it, or the plugin where it has its own way."""
        from transformers import AutoTokenizer

        if self.plugin.has("tokenizer"):
            return self.plugin.load("tokenizer")(str(self.folder))
        return AutoTokenizer.from_pretrained(self.folder)

    # ---- the model --------------------------------------------------------------------------------------------------

    def build(self, dtype: Any = None, config: Any = None) -> Any:
        """The model in reference mode, not filled; of another config, if one is given."""
        import torch

        from ..context import ModelContext
        from .reference import build_reference

        context = ModelContext(config or self.config, dtype or torch.float32, self.options, self.runtime.resolver())
        return build_reference(self.plugin.load("model"), context)

    @cached_property
    def reference(self) -> Any:
        """The model in reference mode, in float32, filled."""
        from .reference import fill, read_safetensors

        model = self.build()
        self.loaded = fill(model, read_safetensors(self.folder))
        return model

    loaded: LoadReport
    """What became of the checkpoint's tensors; known once `reference` was used."""

    @cached_property
    def hf(self) -> Any:
        """The same checkpoint in transformers."""
        import transformers

        from .reference import hf_class, load_hf

        if hf_class(self.config) is None:
            raise NotApplicable(
                f"transformers {transformers.__version__} has no {self.architecture}: there is nothing to compare with"
            )
        return load_hf(self.folder)

    @cached_property
    def opened(self) -> OpenModel:
        """The same checkpoint in the engine."""
        return self.runtime.open(self.folder)

    @contextmanager
    def opened_with(self, settings: Settings) -> Iterator[OpenModel]:
        """The same checkpoint in an engine that is set otherwise."""
        model = self.runtime.open(self.folder, settings)
        try:
            yield model
        finally:
            model.close()

    @cached_property
    def server(self) -> Server:
        """The same checkpoint behind HTTP."""
        self.metadata  # noqa: B018  what was registered in this process is unknown to another
        return self.runtime.serve(self.folder)

    @cached_property
    def answers(self) -> dict[str, Completion]:
        """What the engine answered prompts that it was given alone, by their names."""
        return {}

    # ---- prompts and media ------------------------------------------------------------------------------------------

    @cached_property
    def processor(self) -> BaseMultiModalProcessor[Any]:
        """The plugin's processor."""
        return self.new_processor()

    def new_processor(self) -> BaseMultiModalProcessor[Any]:
        """The plugin's processor, another one."""
        from ..multimodal.info import InputProcessingContext

        self.require("media")
        context = InputProcessingContext(str(self.folder), self.config, self.tokenizer, options=self.options)
        info = self.plugin.load("info")(context)
        made: BaseMultiModalProcessor[Any] = self.plugin.load("processor")(info, self.plugin.load("dummy_inputs")(info))
        return made

    @cached_property
    def hf_processor(self) -> Any:
        """HF's processor, untouched by the plugin; where that fails at whatever medium, as the plugin mends it."""
        from transformers import AutoProcessor

        try:
            theirs = AutoProcessor.from_pretrained(self.folder, backend="pil", trust_remote_code=False)
            for modality, limit in self.limits.items():
                if limit != 0:
                    self._run_hf(theirs, Sample(("", ""), (0,), modality))
        except (
            Exception
        ) as error:  # whatever it is, what the plugin makes of that processor shows whether it can be helped
            self.hf_fault = f"{type(error).__name__}: {error}"
            return self.new_processor().info.get_hf_processor()
        return theirs

    hf_fault = ""
    """Why HF's processor serves only as the plugin mends it; known once `hf_processor` was used."""

    @cached_property
    def limits(self) -> dict[str, int | None]:
        """Modality → most items in a prompt."""
        return dict(self.processor.info.get_supported_mm_limits())

    @cached_property
    def encoder_modality(self) -> str | None:
        """What an encoder-decoder model's encoder takes, one item a prompt and none of its tokens; None for other models."""
        return self.processor.encoder_modality if self.plugin.has("processor") else None

    def meter(self, modality: str) -> Meter:
        """What measures items of a modality; what it measured is kept."""
        return self._meters.setdefault(modality, Meter(self, modality))

    @cached_property
    def _meters(self) -> dict[str, Meter]:
        return {}

    @cached_property
    def special_strings(self) -> list[str]:
        """Strings that the tokenizer takes for special tokens."""
        return [*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()]

    @cached_property
    def usual_ids(self) -> list[int]:
        """The token ids that are neither special nor added, and stand for no medium."""
        avoid = {*self.tokenizer.all_special_ids, *self.tokenizer.get_added_vocab().values()}
        if self.plugin.has("processor"):
            avoid |= self.processor.info.get_placeholder_token_ids()
        return [i for i in range(int(self.text_config.vocab_size)) if i not in avoid]

    def placeholder(self, modality: str, index: int) -> str:
        """What stands for the `index`-th item (from 0) in a text; `""` where nothing does."""
        said = getattr(self.plugin.load("model"), "get_placeholder_str", None)
        found = said(modality, index + 1) if said is not None else None
        return str(self.processor.dummy_inputs.get_dummy_text({modality: 1}) if found is None else found)

    def text_of(self, sample: Sample) -> str:
        """A sample's text, placeholders included."""
        text = sample.parts[0]
        for i, part in enumerate(sample.parts[1:]):
            text += self.placeholder(sample.modality, i) + part
        return text

    def data_of(self, sample: Sample) -> dict[str, list[Any]]:
        """A sample's media, made anew."""
        return {sample.modality: items_of(self, sample.modality, sample.items)} if sample.items else {}

    def prompt_of(self, sample: Sample) -> Prompt:
        """A sample as the engine takes it."""
        return {"prompt": self.text_of(sample), "multi_modal_data": self.data_of(sample)}

    def hf_inputs(self, sample: Sample) -> Any:
        """What HF's processor makes of a sample."""
        return self._run_hf(self.hf_processor, sample)

    def _run_hf(self, processor: Any, sample: Sample) -> Any:
        from ..multimodal.processor import HF_DATA_NAMES

        data = {HF_DATA_NAMES.get(m, m): items for m, items in self.data_of(sample).items()}
        if self.encoder_modality is not None:  # HF takes a text beside it for what the decoder is trained to say
            ids = tokenize(self, self.text_of(sample))
            return {**processor(**data, return_tensors="pt"), **decoder_inputs(ids)}
        return processor(text=self.text_of(sample), **data, return_tensors="pt")

    def processed(self, sample: Sample) -> ProcessedPrompt:
        """What the plugin's processor makes of a sample."""
        return self.processor.apply(self.text_of(sample), self.data_of(sample))

    def describe_sample(self, sample: Sample) -> str:
        """A sample in a few words."""
        items = [describe_item(item) for item in self.data_of(sample).get(sample.modality, ())]
        return f"{self.text_of(sample)!r}" + (f" with {', '.join(items)}" if items else "")
