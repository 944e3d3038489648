"""Level 1: the tiny checkpoint, the model built from its config, and every name of its weights."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..decoder_prompts import for_reference
from ..law import Broken, NotApplicable, law
from ..subject import SEED, Subject

CONFIG = "the tiny checkpoint's config.json"
SURPLUS = "a_tensor_that_nobody_knows"


@law("L1.parts", "Every part that the record names is there and is what it must be.")
def parts(subject: Subject) -> str:
    from ...interfaces import Encoder, Model, supports_encoder_decoder, supports_multimodal
    from ...multimodal import BaseDummyInputsBuilder, BaseMultiModalProcessor, BaseProcessingInfo

    plugin, record = subject.plugin, subject.record
    where = f"the record of {record.name}"
    wanted: dict[str, type] = {
        "model": Model if record.kind == "model" else Encoder,
        "processor": BaseMultiModalProcessor,
        "info": BaseProcessingInfo,
        "dummy_inputs": BaseDummyInputsBuilder,
    }
    named = [part for part in (*wanted, "tiny", "demo", "options", "transcription", "tokenizer") if plugin.has(part)]
    for part in named:
        value = plugin.load(part)
        if part in wanted and not (isinstance(value, type) and issubclass(value, wanted[part])):
            raise Broken(
                f"{part} is {value!r:.100}, not a subclass of {wanted[part].__name__}",
                smallest=f"{part}={getattr(record, part)!r}",
                cause="the record's name of it, or the class's base",
            )
    if not plugin.has("tiny"):
        raise Broken(
            "the record names no tiny checkpoint, so nothing of this architecture can be proven",
            smallest=where,
            cause="write tiny(seed, folder) with sdk.testing.tiny and name it in the record: tiny='package.tiny:name'",
        )
    media = {part for part in ("processor", "info", "dummy_inputs") if plugin.has(part)}
    if media and len(media) < 3:
        raise Broken(
            f"the record names {', '.join(sorted(media))} alone",
            smallest=where,
            cause="a model with media needs processor, info and dummy_inputs, all three of them",
        )
    model = plugin.load("model")
    if bool(media) != (supports_multimodal(model) or supports_encoder_decoder(model)) and record.kind == "model":
        has = (
            "names a processor, but its model does not implement"
            if media
            else "names no processor, but its model implements"
        )
        raise Broken(
            f"the record {has} SupportsMultiModal or SupportsEncoderDecoder",
            smallest=where,
            cause="the bases of the model, or the record's processor, info and dummy_inputs",
        )
    if media and supports_encoder_decoder(model) != (plugin.load("processor").encoder_modality is not None):
        raise Broken(
            "a model implements SupportsEncoderDecoder when, and only when, its processor has an encoder_modality",
            smallest=where,
            cause="the bases of the model, or the processor's encoder_modality",
        )
    return ", ".join(named)


@law("L1.tiny", "One seed gives the same tiny checkpoint twice, another seed another one.", needs=("L1.parts",))
def tiny(subject: Subject) -> str:
    make = subject.plugin.load("tiny")
    try:
        inspect.signature(make).bind(SEED, subject.folder)
    except TypeError as error:
        raise Broken(
            f"tiny cannot be called: {error}", smallest=f"tiny({SEED}, folder)", cause="it takes a seed and a folder"
        ) from error
    other = {seed: subject.folder_for(f"tiny-{seed}-again") for seed in (SEED, SEED + 1)}
    for seed, folder in other.items():
        make(seed, folder)
    first, again, different = (_files(f) for f in (subject.folder, other[SEED], other[SEED + 1]))
    changed = sorted(name for name in first.keys() | again.keys() if first.get(name) != again.get(name))
    if changed:
        raise Broken(
            f"tiny({SEED}) made {changed[0]} differently the second time",
            smallest=f"tiny({SEED}, a); tiny({SEED}, b)",
            cause="something random that the seed does not reach; write it with sdk.testing.tiny.save_tiny",
        )
    weights = [name for name in first if name.endswith(".safetensors")]
    if not weights or all(first[name] == different.get(name) for name in weights):
        raise Broken(
            f"tiny({SEED}) and tiny({SEED + 1}) have the same weights",
            smallest=f"tiny({SEED}, a); tiny({SEED + 1}, b)",
            cause="tiny does not use its seed",
        )
    named = json.loads(first["config.json"]).get("architectures") or ["nothing"]
    if named[0] != subject.architecture:
        raise Broken(
            f"the config.json of the tiny checkpoint names {named[0]}, not {subject.architecture}",
            smallest=f"tiny({SEED}, a)",
            cause=f"save_tiny(…, architecture={subject.architecture!r})",
        )
    size = sum(map(len, first.values()))
    return f"{len(first)} files, {size / 1e6:.1f} MB"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@law("L1.capabilities", "The capabilities told from config.json agree with the parts.", needs=("L1.tiny",))
def capabilities(subject: Subject) -> str:
    from ...pooling import POOLING_TASKS, supports_pooling

    told = subject.capabilities
    if subject.record.kind == "component":
        return "a component is offered for no task"
    if bool(told.modalities) != subject.plugin.has("processor"):
        has = "no" if not subject.plugin.has("processor") else "a"
        raise Broken(
            f"capabilities say modalities={told.modalities}, and the record names {has} processor",
            smallest=CONFIG,
            cause="the capabilities function, or the record's processor",
        )
    if subject.plugin.has("processor") and set(subject.limits) != set(told.modalities):
        raise Broken(
            f"capabilities say modalities={told.modalities}, get_supported_mm_limits says {subject.limits}",
            smallest=CONFIG,
            cause="one of the two misses a modality, or calls it otherwise: modalities are image, audio and video",
        )
    pools = sorted(set(told.tasks) & set(POOLING_TASKS))
    if bool(pools) != supports_pooling(subject.plugin.load("model")):
        implements = "does not implement" if pools else "implements"
        raise Broken(
            f"capabilities say tasks={told.tasks}, and the model {implements} SupportsPooling",
            smallest="the tiny checkpoint's config.json",
            cause="the bases of the model, or the tasks of the capabilities",
        )
    if pools and (told.prefix_caching or told.chunked_prefill != "no"):
        raise Broken(
            f"a model that pools ({', '.join(pools)}) needs each text whole in one step",
            smallest="the tiny checkpoint's config.json",
            cause='capabilities: prefix_caching=False, chunked_prefill="no"',
        )
    return f"tasks {', '.join(told.tasks)}; modalities {', '.join(told.modalities) or 'none'}"


@law(
    "L1.meta",
    "The model builds without memory for its parameters, and what it computes itself is real.",
    needs=("L1.tiny",),
)
def meta(subject: Subject) -> str:
    model = subject.runtime.build(subject.folder)
    for name, parameter in model.named_parameters():
        if not parameter.is_meta:
            raise Broken(
                f"parameter {name!r} takes memory before loading",
                smallest=name,
                cause="parameters are made by torch.empty, as the SDK's layers do; what is computed is a buffer",
            )
    for name, buffer in model.named_buffers():
        if buffer.is_meta:
            raise Broken(f"buffer {name!r} was never computed", smallest=name, cause="fill it in __init__")
    return f"{sum(1 for _ in model.parameters())} parameters, {sum(1 for _ in model.buffers())} buffers"


@law("L1.weights", "Every tensor of the checkpoint has its place, and every parameter is filled.", needs=("L1.tiny",))
def weights(subject: Subject) -> str:
    from ...errors import MissingWeightsError, UnexpectedWeightsError, WeightsError, WeightsShapeError
    from ..reference import fill, read_safetensors

    model = subject.build()
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data.fill_(float("nan"))  # so that what is said to be filled, and is not, shows
    try:
        report = fill(model, read_safetensors(subject.folder))
    except WeightsError as error:
        tied = bool(getattr(subject.config, "tie_word_embeddings", False))
        causes = {
            MissingWeightsError: "a layer of the model that the checkpoint calls something else: add a rename to weight_map"
            + ("; the config ties the head: self.lm_head.tie_weights(self.model.embed_tokens)" if tied else ""),
            UnexpectedWeightsError: "weight_map: rename it, or drop it where the model has no use for it",
            WeightsShapeError: "sizes read from the wrong key of the config, or the parts of a fused layer",
            WeightsError: "whether the head is tied: tie_word_embeddings in the config decides",
        }
        cause = next(text for kind, text in causes.items() if isinstance(error, kind))
        raise Broken(str(error), smallest="the tiny checkpoint", cause=cause) from error
    unfilled = [name for name, p in model.named_parameters() if p.is_floating_point() and p.isnan().any()]
    if unfilled:
        raise Broken(
            f"{unfilled[0]!r} is not filled, though load_weights says so",
            smallest=unfilled[0],
            cause="the model's own load_weights: it returns the names of those parameters that it did fill",
        )
    dropped = f", {len(report.dropped)} dropped on purpose" if report.dropped else ""
    return f"{len(report.filled)} parameters filled{dropped}"


@law("L1.surplus", "A tensor that the model does not know is an error.", needs=("L1.weights",))
def surplus(subject: Subject) -> str:
    import torch

    from ...interfaces import Encoder, Model
    from ..reference import fill, read_safetensors

    tensors = dict(read_safetensors(subject.folder))
    subject.reference  # noqa: B018  what is dropped on purpose is known by it
    kept = [name for name in tensors if name not in subject.loaded.dropped and "." in name]
    beside = max(kept, key=lambda name: name.count("."))
    name = f"{beside.rsplit('.', 2)[0]}.{SURPLUS}.weight"
    model = subject.build()
    try:
        fill(model, [*tensors.items(), (name, torch.zeros(1))])
    except Exception:  # however it is refused
        return f"{name} is refused"
    own = type(model).load_weights
    raise Broken(
        f"a checkpoint with a further tensor {name} loads, and the tensor is passed over in silence",
        smallest=name,
        cause="weight_map's drop, which is wider than what it is meant for"
        if own in (Model.load_weights, Encoder.load_weights)
        else f"{own.__qualname__}: what it does not know belongs to super().load_weights, which refuses it",
    )


@law("L1.spellings", "Checkpoints under other published names load to the same parameters.", needs=("L1.weights",))
def spellings(subject: Subject) -> str:
    import torch

    from ..reference import fill, read_safetensors

    named: dict[str, Any] = getattr(subject.plugin.load("tiny"), "spellings", {})
    if not named:
        raise NotApplicable("its tiny function declares no other spelling; see sdk.testing.tiny.also_spelled")
    expected = dict(subject.reference.named_parameters())
    for label, rename in named.items():

        def renamed(rename: Any = rename) -> Iterator[tuple[str, Any]]:
            for name, tensor in read_safetensors(subject.folder):
                yield rename(name), tensor

        first = next(
            (f"{a} → {b}" for (a, _), (b, _) in zip(read_safetensors(subject.folder), renamed()) if a != b), ""
        )
        model = subject.build()
        try:
            fill(model, renamed())
        except Exception as error:
            raise Broken(
                f"under the spelling {label!r}: {error}", smallest=first, cause="weight_map lacks a rename for it"
            ) from error
        wrong = [name for name, p in model.named_parameters() if not torch.equal(p, expected[name])]
        if wrong:
            raise Broken(
                f"under the spelling {label!r}, {wrong[0]!r} gets another tensor",
                smallest=first,
                cause="a rename of weight_map that is meant for another spelling",
            )
    return ", ".join(named)


@law("L1.bfloat16", "The model loads and runs in bfloat16.", needs=("L1.weights",))
def bfloat16(subject: Subject) -> str:
    import torch

    from ...pooling import POOLING_TASKS
    from ..reference import fill, read_safetensors, reference_logits

    model = subject.build(torch.bfloat16)
    fill(model, read_safetensors(subject.folder))
    others = [n for n, p in model.named_parameters() if p.is_floating_point() and p.dtype != torch.bfloat16]
    if others:
        raise Broken(
            f"parameter {others[0]!r} is not bfloat16 after loading in bfloat16",
            smallest=others[0],
            cause="a .float() in __init__ or load_weights",
        )
    if subject.record.kind == "component" or set(subject.capabilities.tasks) <= set(POOLING_TASKS):
        return f"{sum(1 for _ in model.parameters())} parameters"
    subject.trying = "token ids [1, 2, 3]"
    logits = reference_logits(model, for_reference(subject, [1, 2, 3]))
    if not logits.isfinite().all():
        raise Broken(
            "logits in bfloat16 hold NaN or infinity",
            smallest=subject.trying,
            cause="a value outside of what bfloat16 holds, such as a mask of a large number in the place of -inf",
        )
    return "3 tokens"


LAWS = (parts, tiny, capabilities, meta, weights, surplus, spellings, bfloat16)
