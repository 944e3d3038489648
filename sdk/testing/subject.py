"""What the laws are about: one architecture, its plugin, and its tiny checkpoint in every form; made when first used."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .law import NotApplicable
from .probe import Probe, probe
from .runtime import Metadata, OpenModel, Plugin, Prompt, Runtime
from .samples import Sample, describe_item, items_of
from .source import package_files

if TYPE_CHECKING:
    from ..multimodal.processor import BaseMultiModalProcessor, ProcessedPrompt
    from ..spec import Architecture

SEED = 0


class Subject:
    """One architecture under test.

    Args:
        architecture: The HF architecture string.
        runtime: The engine.
    """

    def __init__(self, architecture: str, runtime: Runtime) -> None:
        self.architecture, self.runtime = architecture, runtime
        self._work = tempfile.TemporaryDirectory(prefix="engine-verify-", ignore_cleanup_errors=True)

    def close(self) -> None:
        """Close what is open and remove what was written."""
        if "opened" in self.__dict__:
            self.opened.close()
        self.__dict__ = {k: v for k, v in self.__dict__.items() if k in ("architecture", "runtime", "_work")}
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

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer, as transformers loads it."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    # ---- the model --------------------------------------------------------------------------------------------------

    def build(self, dtype: Any = None) -> Any:
        """The model in reference mode, not filled."""
        import torch

        from ..context import ModelContext
        from .reference import build_reference

        options = self.plugin.load("options")() if self.plugin.has("options") else None
        context = ModelContext(self.config, dtype or torch.float32, options, self.runtime.resolver())
        return build_reference(self.plugin.load("model"), context)

    @cached_property
    def reference(self) -> Any:
        """The model in reference mode, in float32, filled."""
        from .reference import fill, read_safetensors

        model = self.build()
        fill(model, read_safetensors(self.folder))
        return model

    @cached_property
    def hf(self) -> Any:
        """The same checkpoint in transformers."""
        import transformers

        from .reference import load_hf

        if not hasattr(transformers, self.architecture):
            raise NotApplicable(
                f"transformers {transformers.__version__} has no {self.architecture}: there is nothing to compare with"
            )
        return load_hf(self.folder)

    @cached_property
    def opened(self) -> OpenModel:
        """The same checkpoint in the engine."""
        return self.runtime.open(self.folder)

    # ---- prompts and media ------------------------------------------------------------------------------------------

    @cached_property
    def processor(self) -> BaseMultiModalProcessor[Any]:
        """The plugin's processor."""
        return self.new_processor()

    def new_processor(self) -> BaseMultiModalProcessor[Any]:
        """The plugin's processor, another one."""
        from ..multimodal.info import InputProcessingContext

        self.require("media")
        info = self.plugin.load("info")(InputProcessingContext(str(self.folder), self.config, self.tokenizer))
        made: BaseMultiModalProcessor[Any] = self.plugin.load("processor")(info, self.plugin.load("dummy_inputs")(info))
        return made

    @cached_property
    def hf_processor(self) -> Any:
        """HF's processor, untouched by the plugin."""
        from transformers import AutoProcessor

        try:
            return AutoProcessor.from_pretrained(self.folder, backend="pil", trust_remote_code=False)
        except (OSError, ValueError, ImportError):
            return self.new_processor().info.get_hf_processor()

    @cached_property
    def limits(self) -> dict[str, int | None]:
        """Modality → most items in a prompt."""
        return dict(self.processor.info.get_supported_mm_limits())

    @cached_property
    def special_strings(self) -> list[str]:
        """Strings that the tokenizer takes for special tokens."""
        return [*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()]

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
        from ..multimodal.processor import HF_DATA_NAMES

        data = {HF_DATA_NAMES.get(m, m): items for m, items in self.data_of(sample).items()}
        return self.hf_processor(text=self.text_of(sample), **data, return_tensors="pt")

    def processed(self, sample: Sample) -> ProcessedPrompt:
        """What the plugin's processor makes of a sample."""
        return self.processor.apply(self.text_of(sample), self.data_of(sample))

    def describe_sample(self, sample: Sample) -> str:
        """A sample in a few words."""
        items = [describe_item(item) for item in self.data_of(sample).get(sample.modality, ())]
        return f"{self.text_of(sample)!r}" + (f" with {', '.join(items)}" if items else "")
