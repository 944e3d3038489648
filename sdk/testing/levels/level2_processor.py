"""Level 2: what the plugin makes of prompts and media, against HF's processor and against itself."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import PluginRuntimeError
from ..decoder_prompts import for_engine, tokenize
from ..law import Broken, NotApplicable, law
from ..place import place_of
from ..samples import Sample, all_media_samples, smallest, texts
from ..subject import Subject

if TYPE_CHECKING:
    from ...multimodal.processor import ProcessedItem, ProcessedPrompt

RANDOM_TEXTS = 24
"""How many random texts are tried besides the fixed ones."""


def _hold(subject: Subject, samples: Sequence[Sample], wrong: Callable[[Sample], str], cause: str = "") -> str:
    """Check samples one by one; the first that is wrong is made as small as it gets."""

    def fault(sample: Sample) -> tuple[str, str]:
        """What is wrong, and where it was raised or else what the law says of it."""
        try:
            return wrong(sample), cause
        except NotApplicable:
            raise
        except Exception as error:
            named = isinstance(error, PluginRuntimeError)  # the hook that failed, so it is not for the law to guess
            return f"{type(error).__name__}: {error}", place_of(error) or ("" if named else cause)

    for sample in samples:
        if fault(sample)[0]:
            least = smallest(sample, lambda s: bool(fault(s)[0]))
            what, where = fault(least)
            raise Broken(what, smallest=subject.describe_sample(least), cause=_cause(what) or where)
    return f"{len(samples)} prompts"


def _cause(what: str) -> str:
    if "went in and" in what or "and sizes of" in what:
        return (
            "the fields: which tensor of the HF processor has one row an item, and which has several (flat_from_sizes)"
        )
    if "where HF's processor writes" in what:
        return "_get_prompt_updates writes another number of tokens than HF's processor; see how that one counts"
    if "the text around" in what:
        return "_apply_hf_processor_tokens_only: what HF's processor adds to a prompt whether or not there are media"
    return ""


@law("L2.text-ids", "A text has the ids that HF's tokenizer gives it.", needs=("L1.weights",))
def text_ids(subject: Subject) -> str:
    subject.require("model")
    found = [t for t in texts(RANDOM_TEXTS, subject.special_strings) if subject.tokenizer(t)["input_ids"]]

    def wrong(sample: Sample) -> str:
        if not sample.parts[0]:
            return ""  # an engine may refuse to continue nothing
        expected = tokenize(subject, sample.parts[0])
        made = subject.opened.process(for_engine(subject, sample.parts[0])).prompt_token_ids
        return "" if made == expected else f"ids {made} where HF's tokenizer gives {expected}"

    cause = "_apply_hf_processor_tokens_only" if subject.plugin.has("processor") else "which tokenizer is loaded"
    return _hold(subject, [Sample((text,)) for text in found], wrong, cause)


@law("L2.not-mutated", "Processing changes neither the prompt nor the media nor the arguments it is given.")
def not_mutated(subject: Subject) -> str:
    def wrong(sample: Sample) -> str:
        for text in (subject.text_of(sample), tokenize(subject, subject.text_of(sample))):
            data, kwargs = subject.data_of(sample), dict[str, Any]()
            given: dict[str, Any] = {"the prompt": text, "the media": data, "mm_processor_kwargs": kwargs}
            before = {name: copy.deepcopy(value) for name, value in given.items()}
            subject.processor.apply(text, data, kwargs)
            for name, value in given.items():
                if not _equal(before[name], value):
                    return f"{name} changed: {_short(before[name])} became {_short(value)}"
        return ""

    cause = "an operation in place on what the caller owns (thumbnail, paste, +=, pop): work on a copy"
    return _hold(subject, [s for s in all_media_samples(subject) if s.items], wrong, cause)


@law("L2.ids-equal-hf", "Text with media has the ids that HF's processor gives it.", needs=("L1.tiny",))
def ids_equal_hf(subject: Subject) -> str:
    samples = all_media_samples(subject)
    for modality, limit in subject.limits.items():
        found = texts(RANDOM_TEXTS // 2, subject.special_strings)
        samples += [Sample((a, b), (0,), modality) for a, b in itertools.pairwise(found) if limit is None or limit > 0]

    def wrong(sample: Sample) -> str:
        made = subject.hf_inputs(sample)
        expected = _ids(made["input_ids" if subject.encoder_modality is None else "decoder_input_ids"])
        return _compare_ids(subject.processed(sample), expected)

    cause = "what stands for an item in a prompt: get_placeholder_str, and the target of _get_prompt_updates"
    return _hold(subject, samples, wrong, cause) + _oracle(subject)


def _oracle(subject: Subject) -> str:
    """A remark, where HF's processor by itself is no oracle."""
    return f"; HF's processor as the plugin mends it ({subject.hf_fault})" if subject.hf_fault else ""


def _ids(value: Any) -> list[int]:
    found = value.tolist() if hasattr(value, "tolist") else list(value)
    return [int(i) for i in (found[0] if found and isinstance(found[0], list) else found)]


def _compare_ids(made: ProcessedPrompt, expected: list[int]) -> str:
    ids = made.prompt_token_ids
    if ids == expected:
        return ""
    placed = {t for i in made.items for t in ids[i.placeholder.offset : i.placeholder.offset + i.placeholder.length]}
    ours, theirs = (sum(token in placed for token in found) for found in (ids, expected))
    if ours != theirs:
        return (
            f"{ours} placeholder tokens where HF's processor writes {theirs} ({len(ids)} ids against {len(expected)})"
        )
    at = next((i for i, (a, b) in enumerate(zip(ids, expected)) if a != b), min(len(ids), len(expected)))
    return f"the text around the media differs from token {at} on: {ids[at : at + 6]} against {expected[at : at + 6]}"


@law(
    "L2.tokens-equal-text",
    "A prompt given as token ids gives what its text gives.",
    needs=("L2.ids-equal-hf", "L2.repeatable"),
)
def tokens_equal_text(subject: Subject) -> str:
    def wrong(sample: Sample) -> str:
        ids = tokenize(subject, subject.text_of(sample))
        return _difference(subject.processor.apply(ids, subject.data_of(sample)), subject.processed(sample))

    return _hold(
        subject,
        all_media_samples(subject),
        wrong,
        "something that _apply_hf_processor_tokens_only does twice, or only to text",
    )


@law("L2.repeatable", "The same prompt processed again, by this processor or another, gives the same tensors.")
def repeatable(subject: Subject) -> str:
    def wrong(sample: Sample) -> str:
        first = subject.processed(sample)
        fresh = subject.new_processor().apply(subject.text_of(sample), subject.data_of(sample))
        return _difference(subject.processed(sample), first) or _difference(fresh, first)

    return _hold(
        subject,
        all_media_samples(subject),
        wrong,
        "randomness, or state that the processor keeps from prompt to prompt",
    )


@law("L2.items-independent", "An item's tensors are the same alone and beside others, and items keep their order.")
def items_independent(subject: Subject) -> str:
    def wrong(sample: Sample) -> str:
        together = subject.processed(sample).items
        order = [item.placeholder.index for item in together]
        if order != list(range(len(sample.items))):
            return f"the prompt has items {order} where {len(sample.items)} were given"
        for item, i in zip(together, sample.items):
            alone = subject.processed(Sample(("", ""), (i,), sample.modality)).items[0]
            name = _other_tensor(item, alone)
            if name:
                return f"{name} of item {item.placeholder.index} differs from that of the same item alone"
        return ""

    cause = "padding or resizing to the largest item of the prompt, or fields that give an item another's rows"
    return _hold(subject, [s for s in all_media_samples(subject) if len(s.items) > 1], wrong, cause)


@law("L2.tensors-equal-hf", "The tensors of each item are those that HF's processor makes.", needs=("L2.ids-equal-hf",))
def tensors_equal_hf(subject: Subject) -> str:
    compared: set[str] = set()

    def wrong(sample: Sample) -> str:
        from ...multimodal.fields import split_into_items

        made, hf = subject.hf_inputs(sample), subject.processed(sample)
        expected = split_into_items(made, subject.processor._get_mm_fields_config(made, {}))
        for item in _items(hf):
            theirs = expected[item.modality][item.placeholder.index]
            for name in item.kwargs.keys() & theirs.keys() & set(made):
                compared.add(name)
                if not _equal(item.kwargs[name].value, theirs[name].value):
                    return f"{name} of item {item.placeholder.index} is not what HF's processor makes"
        return ""

    samples = [s for s in all_media_samples(subject) if s.items]
    done = _hold(
        subject, samples, wrong, "_call_hf_processor changes it, or the processor is built with other settings"
    )
    if not compared:
        raise NotApplicable("_call_hf_processor renames every tensor: none bears the name HF's processor gives it")
    return f"{', '.join(sorted(compared))} in {done}{_oracle(subject)}"


@law("L2.placeholder-rows", "Every item has as many placeholder tokens as rows of embeddings.", needs=("L1.weights",))
def placeholder_rows(subject: Subject) -> str:
    import torch

    from ...multimodal.fields import join_items

    subject.require("media")
    if subject.encoder_modality is not None:
        raise NotApplicable(f"its encoder takes {subject.encoder_modality}: nothing stands for it in the prompt")

    @torch.inference_mode()
    def wrong(sample: Sample) -> str:
        items = subject.processed(sample).items
        made = (
            subject.reference.get_multimodal_embeddings(**join_items([item.kwargs for item in items])) if items else ()
        )
        if made is None:
            return f"get_multimodal_embeddings returns None for {len(items)} items: is there a return?"
        if len(made) != len(items):
            return f"get_multimodal_embeddings gives {len(made)} embeddings for {len(items)} items"
        for item, rows in zip(items, made):
            if rows.shape[0] != item.placeholder.num_embeds:
                return (
                    f"item {item.placeholder.index} has {item.placeholder.num_embeds} placeholder tokens that take embeddings, "
                    f"and get_multimodal_embeddings gives it {rows.shape[0]} rows"
                )
        return ""

    cause = "how many tokens _get_prompt_updates writes, which of them take embeddings, or rows the model drops (a class token)"
    return _hold(subject, [s for s in all_media_samples(subject) if s.items], wrong, cause)


def _difference(one: ProcessedPrompt, other: ProcessedPrompt) -> str:
    if one.prompt_token_ids != other.prompt_token_ids:
        return f"the ids differ: {_short(one.prompt_token_ids)} and {_short(other.prompt_token_ids)}"
    for a, b in zip(_items(one), _items(other)):
        name = _other_tensor(a, b)
        if name or a.placeholder.offset != b.placeholder.offset:
            return f"{name or 'the place'} of item {a.placeholder.index} differs"
    counts = len(_items(one)), len(_items(other))
    return "" if counts[0] == counts[1] else f"{counts[0]} items and {counts[1]} items"


def _items(prompt: ProcessedPrompt) -> tuple[ProcessedItem, ...]:
    """A prompt's items, that of the encoder among them."""
    return prompt.items if prompt.encoder_item is None else (*prompt.items, prompt.encoder_item)


def _other_tensor(one: ProcessedItem, other: ProcessedItem) -> str:
    """The name of a tensor that two items do not share."""
    names = sorted(one.kwargs.keys() | other.kwargs.keys())
    values = ((one.kwargs.get(name), other.kwargs.get(name)) for name in names)
    return next((n for n, (a, b) in zip(names, values) if a is None or b is None or not _equal(a.value, b.value)), "")


def _equal(one: Any, other: Any) -> bool:
    """Equality of nested containers, tensors, arrays and pictures."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_equal(v, other[k]) for k, v in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if hasattr(one, "tobytes") and hasattr(one, "size"):  # a picture or an array
        return bool(one.size == other.size and one.tobytes() == other.tobytes())
    if hasattr(one, "equal") and hasattr(one, "shape"):
        return bool(one.shape == other.shape and one.equal(other))
    return bool(one == other)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 90 else f"{text[:87]}…"


LAWS = (
    text_ids,
    ids_equal_hf,
    repeatable,
    not_mutated,
    tokens_equal_text,
    items_independent,
    tensors_equal_hf,
    placeholder_rows,
)
