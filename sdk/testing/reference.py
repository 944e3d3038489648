"""Run a model by itself: no engine, no cache, one sequence, plain torch. The oracle of everything that is faster."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..context import ModelContext, Resolver
from ..errors import PluginMissingError, WeightsError
from ..interfaces import Encoder, Model, takes_media_mask
from ..layers.rotary import RotaryEmbedding
from ..multimodal.fields import join_items
from ..multimodal.info import InputProcessingContext
from ..multimodal.processor import BaseMultiModalProcessor, ProcessedItem, ProcessedPrompt
from ..spec import Architecture, Role
from ..weights import LoadReport, load_weights_report, raise_for_missing, raise_for_unexpected
from .tiny import ORACLE


def load_target(target: str) -> Any:
    """The object that a record's `"module:attribute"` names."""
    module, _, path = target.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def find_record(records: Sequence[Architecture], config: Any, role: Role | None = None) -> Architecture:
    """The record that answers a config: by its architecture, or by its `model_type`.

    Args:
        records: What plugins' `engine_architectures` returned.
        config: A parsed HF config.
        role: Only records with this role, for a part of a model.
    """
    fitting = [r for r in records if role is None or r.role == role]
    names, model_type = getattr(config, "architectures", None) or (), getattr(config, "model_type", None)
    for record in fitting:
        if record.name in names:
            return record
    for record in fitting:
        if model_type in record.model_types:
            return record
    known = ", ".join(r.name for r in fitting)
    raise PluginMissingError(f"no record runs {', '.join(names) or model_type} as a {role or 'model'}; known: {known}")


def resolver_for(records: Sequence[Architecture]) -> Resolver:
    """A resolver for `ModelContext` over a fixed list of records."""

    def resolve(config: Any, role: Role) -> tuple[type[Any], ModelContext]:
        record = find_record(records, config, role)
        return load_target(record.model), ModelContext(hf_config=config, options=default_options(record))

    return resolve


def default_options(record: Architecture) -> Any:
    """The plugin's own options where nobody gives any; None where it declares none."""
    return None if record.options is None else load_target(record.options)()


def read_safetensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a checkpoint folder, as name and value."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{folder} has no safetensors file")
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                yield name, tensors.get_tensor(name)


def fill(module: torch.nn.Module, weights: Iterable[tuple[str, Tensor]]) -> LoadReport:
    """Fill a model or an encoder; every parameter and every tensor of the checkpoint must find its counterpart."""
    offered: list[str] = []
    own = getattr(type(module), "load_weights", None)

    def noted() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in weights:
            offered.append(name)
            yield name, tensor

    if own in (None, Model.load_weights, Encoder.load_weights):
        report = load_weights_report(module, noted())
    else:
        report = LoadReport(filled=set(own(module, noted()) or ()))
    raise_for_unexpected(module, report.unexpected)
    raise_for_missing(module, report.filled, offered)
    return report


def build_reference(model_class: Any, context: ModelContext) -> Any:
    """Build a model or an encoder with parameters of the context's dtype, not filled yet."""
    model = model_class(ctx=context)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(context.dtype)
    return model.eval().requires_grad_(False)


def load_reference(folder: Path, records: Sequence[Architecture], *, dtype: torch.dtype = torch.float32) -> Any:
    """Build a checkpoint's model from the plugins' records and fill it.

    Args:
        folder: The checkpoint.
        records: The records of the plugins it needs.
        dtype: What its floating-point parameters shall be.

    Returns:
        An `sdk.Model` (or `sdk.Encoder`) on the CPU, in reference mode.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    record = find_record(records, config)
    context = ModelContext(config, dtype, default_options(record), resolver_for(records))
    model = build_reference(load_target(record.model), context)
    fill(model, read_safetensors(folder))
    return model


def hf_class(config: Any) -> Any:
    """The class in transformers that a config names, be it exported or only beside its config; None: there is none.

    The config of a tiny checkpoint may name another architecture than the class that it was made with.
    """
    import transformers

    name = getattr(config, ORACLE, None) or config.architectures[0]
    if hasattr(transformers, name):
        return getattr(transformers, name)
    beside = type(config).__module__.replace(".configuration_", ".modeling_")
    try:
        return getattr(importlib.import_module(beside), name, None)
    except ImportError:
        return None


def load_hf(folder: Path, config: Any = None) -> Any:
    """The same checkpoint in transformers: float32, eager attention; under another config, if one is given.

    An architecture that transformers does not know by name is loaded by its `model_type`.
    """
    import transformers

    config = config or transformers.AutoConfig.from_pretrained(folder)
    cls = hf_class(config)
    if cls is None:
        mappings = (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText, transformers.AutoModel)
        cls = next((m for m in mappings if type(config) in m._model_mapping), transformers.AutoModel)
    return cls.from_pretrained(folder, config=config, attn_implementation="eager", dtype=torch.float32).eval()


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    """Assert that two tensors agree within `tolerance * max(1, max |theirs|)`, everywhere.

    Raises:
        AssertionError: They do not; it says where the difference is largest.
    """
    if ours.shape != theirs.shape:
        raise AssertionError(f"shapes differ: {tuple(ours.shape)} and {tuple(theirs.shape)}")
    difference = (ours.float() - theirs.float()).abs()
    bound = tolerance * max(1.0, float(theirs.abs().max()))
    worst = int(difference.argmax())
    if not float(difference.max()) <= bound:
        place = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), difference.shape))
        raise AssertionError(
            f"largest difference {float(difference.max()):.3g} at {place} is over {bound:.3g}: "
            f"{float(ours[place]):.6g} against {float(theirs[place]):.6g}"
        )


def load_processor(
    folder: Path, records: Sequence[Architecture], **mm_processor_kwargs: Any
) -> BaseMultiModalProcessor[Any]:
    """The multi-modal processor of a checkpoint, with the extra arguments an engine would be given."""
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    record = find_record(records, config)
    if record.processor is None or record.info is None or record.dummy_inputs is None:
        raise PluginMissingError(f"{record.name} takes no media: its record names no processor, info and dummy_inputs")
    read = AutoTokenizer.from_pretrained if record.tokenizer is None else load_target(record.tokenizer)
    context = InputProcessingContext(
        str(folder), config, read(str(folder)), mm_processor_kwargs, default_options(record)
    )
    info = load_target(record.info)(context)
    processor = load_target(record.processor)(info, load_target(record.dummy_inputs)(info))
    return cast("BaseMultiModalProcessor[Any]", processor)


@torch.inference_mode()
def media_embeddings(model: Any, items: Sequence[ProcessedItem]) -> list[Tensor]:
    """Each item's embeddings `(n_i, hidden)`, those of one modality encoded together."""
    found: dict[int, Tensor] = {i: item.embeddings for i, item in enumerate(items) if item.embeddings is not None}
    for modality in dict.fromkeys(item.modality for item in items):
        indices = [i for i, item in enumerate(items) if item.modality == modality and i not in found]
        if indices:
            encoded = model.get_multimodal_embeddings(**join_items([items[i].kwargs for i in indices]))
            if encoded is None:
                raise TypeError(f"get_multimodal_embeddings returns None for {len(indices)} items: is there a return?")
            found.update(zip(indices, encoded))
    return [found[i] for i in range(len(items))]


@torch.inference_mode()
def encoder_states(model: Any, items: Sequence[ProcessedItem]) -> Sequence[Tensor]:
    """What an encoder-decoder model's encoder makes of items: `(n_i, hidden)` each, all encoded together."""
    states: Sequence[Tensor] = model.encode(**join_items([item.kwargs for item in items]))
    return states


@torch.inference_mode()
def reference_logits(model: Model, prompt: Sequence[int] | ProcessedPrompt, continuation: Sequence[int] = ()) -> Tensor:
    """Logits at every position of one sequence: `(tokens, vocab)`.

    Args:
        model: From `load_reference`.
        prompt: Token ids, or what a multi-modal processor made of a prompt with media.
        continuation: Tokens that were generated after it.
    """
    items = prompt.items if isinstance(prompt, ProcessedPrompt) else ()
    heard = prompt.encoder_item if isinstance(prompt, ProcessedPrompt) else None
    kwargs = {} if heard is None else {"encoder_states": encoder_states(model, [heard])[0]}
    given = prompt.prompt_token_ids if isinstance(prompt, ProcessedPrompt) else list(prompt)
    ids = torch.tensor([*given, *continuation])
    positions = torch.arange(len(ids))
    with _lengths(model, positions, len(given)):
        if not items:
            return model.compute_logits(model(ids, positions, **kwargs))
        mask = torch.zeros(len(ids), dtype=torch.bool)
        for item in items:
            start, length = item.placeholder.offset, item.placeholder.length
            mask[start : start + length] = torch.from_numpy(item.placeholder.mask)
        mask_given = {"is_multimodal": mask} if takes_media_mask(model) else {}
        embeds = model.get_input_embeddings(ids, media_embeddings(model, items), **mask_given)
        return model.compute_logits(model(ids, positions, inputs_embeds=embeds, **kwargs))


@contextmanager
def _lengths(model: Model, positions: Tensor, prompt_len: int) -> Iterator[None]:
    """Where rotary frequencies depend on the length, each token has the one that counted when it was computed: the
    prompt's for a token of the prompt, its own position and one for a generated one."""
    lengths = (positions + 1).clamp(min=prompt_len)
    layers = [m for m in model.modules() if isinstance(m, RotaryEmbedding) and m.depends_on_length and m.kernel is None]
    for layer in layers:
        layer.fill(functools.partial(layer.reference, lengths=lengths))
    try:
        yield
    finally:
        for layer in layers:
            layer.fill(None)
