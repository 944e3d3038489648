"""Level 4: the tiny checkpoint computes what transformers computes from it, in float32, by itself and in the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..decoder_prompts import for_engine, for_hf, for_reference
from ..diagnosis import engine_cause, reference_cause
from ..law import Broken, NotApplicable, law
from ..oracle import answering, generating
from ..pooled import no_pooling
from ..samples import Sample, all_media_samples, random_ids, smallest
from ..subject import Subject

if TYPE_CHECKING:
    from torch import Tensor

    from ...multimodal.processor import ProcessedPrompt

TOLERANCE = 1e-4
"""Times the largest logit, or 1 where that is smaller."""
GREEDY_TOKENS = 64
LONG = 96
"""Tokens of the longest text prompt, which outgrows a page and, in a well-made tiny checkpoint, the sliding window."""


def distances(ours: Tensor, theirs: Tensor) -> tuple[list[int], str]:
    """Positions at which logits differ, and where they differ most."""
    if ours.shape != theirs.shape:
        return [0], f"logits have shape {tuple(ours.shape)} where transformers gives {tuple(theirs.shape)}"
    if not theirs.numel():
        return [], ""
    bound = TOLERANCE * max(1.0, float(theirs.abs().max()))
    worst = (ours.float() - theirs.float()).abs().amax(dim=-1).nan_to_num(float("inf"))
    wrong = (worst > bound).nonzero().flatten().tolist()
    return wrong, f"logits differ by up to {float(worst.max()):.3g}, and {bound:.1g} is allowed" if wrong else ""


# ---- text ------------------------------------------------------------------------------------------------------------


def _token_prompts(subject: Subject) -> dict[str, list[int]]:
    """Token ids from one token to `LONG`; special ones among them only at the start."""
    subject.require("model")
    no_pooling(subject)
    room = subject.seq_len
    if room < GREEDY_TOKENS + 16:
        raise Broken(f"the tiny checkpoint holds {room} positions; give it at least {GREEDY_TOKENS + LONG + 1}")
    lengths = {"one token": 1, "7 tokens": 7, "long": min(LONG, room - GREEDY_TOKENS - 1)}
    return {name: random_ids(subject, n, seed=n) for name, n in lengths.items()}


def _token_ids(ids: Sequence[int]) -> str:
    return f"token ids {list(ids)}" if len(ids) <= 12 else f"{len(ids)} token ids, from {list(ids[:4])}…"


def hf_logits(subject: Subject, ids: Sequence[int]) -> Tensor:
    """What transformers computes: `(tokens, vocab)`."""
    import torch

    with torch.inference_mode():
        found: Tensor = answering(subject.hf, inputs := for_hf(subject, ids))(**inputs).logits[0]
    return found


@law("L4.logits-reference", "The model by itself gives transformers' logits at every position.", needs=("L1.weights",))
def logits_reference(subject: Subject) -> str:
    from ..reference import reference_logits

    prompts = _token_prompts(subject)
    for ids in prompts.values():
        subject.trying = _token_ids(ids)
        wrong, what = distances(
            reference_logits(subject.reference, for_reference(subject, ids)), hf_logits(subject, ids)
        )
        if wrong:
            least = ids[: wrong[0] + 1]
            raise Broken(
                f"{what}; from position {wrong[0]} on" if wrong[0] else what,
                smallest=_token_ids(least),
                cause=reference_cause(subject, ids, wrong),
            )
    return f"{len(prompts)} prompts of up to {max(map(len, prompts.values()))} tokens"


@law("L4.logits-engine", "The engine, paged and batched, gives transformers' logits.", needs=("L4.logits-reference",))
def logits_engine(subject: Subject) -> str:
    prompts = _token_prompts(subject)
    subject.trying = f"{len(prompts)} prompts in one batch"
    made = subject.opened.logits([for_engine(subject, ids) for ids in prompts.values()])
    for (name, ids), ours in zip(prompts.items(), made):
        expected = hf_logits(subject, ids)
        wrong, what = distances(ours, expected)
        if wrong:
            alone = bool(distances(subject.opened.logits([for_engine(subject, ids)])[0], expected)[0])
            raise Broken(
                f"{what}, though the model by itself is right",
                smallest=f"{name} alone, token ids {ids[: wrong[0] + 1][:12]}…"
                if alone
                else "two prompts in one batch",
                cause=engine_cause(alone),
            )
    return f"{len(prompts)} prompts in one batch"


@law("L4.greedy", "The engine's greedy tokens are those of transformers.", needs=("L4.logits-engine",))
def greedy(subject: Subject) -> str:
    prompts = _token_prompts(subject)
    inputs = [for_hf(subject, ids) for ids in prompts.values()]
    return _same_tokens(subject, [for_engine(subject, ids) for ids in prompts.values()], inputs, list(prompts))


def _same_tokens(subject: Subject, prompts: Sequence[Any], inputs: Sequence[Any], names: Sequence[str]) -> str:
    expected = [_hf_tokens(subject, given) for given in inputs]
    made = [list(completion.token_ids) for completion in subject.opened.generate(prompts, GREEDY_TOKENS)]
    for name, ours, theirs in zip(names, made, expected):
        if len(set(theirs)) < 4:
            raise Broken(
                f"transformers says only {len(set(theirs))} different tokens after {name!r}: nothing can be told from that",
                cause="the weights of the tiny checkpoint; write it with sdk.testing.tiny.save_tiny, which spreads them",
            )
        if ours != theirs:
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
            raise Broken(
                f"token {at} of {GREEDY_TOKENS} differs: {ours[at : at + 4]} against {theirs[at : at + 4]}",
                smallest=f"{name}, and {at} tokens after it",
                cause=engine_cause(alone=True, decoding=True),
            )
    return f"{len(names)} prompts in one batch, {GREEDY_TOKENS} tokens each"


def _hf_tokens(subject: Subject, inputs: Any) -> list[int]:
    """Greedy tokens of transformers, past any end token. (min_new_tokens would forbid end tokens instead.)"""
    import torch
    from transformers import GenerationConfig

    if subject.encoder_modality is not None:
        return _hf_decoded(subject, inputs)
    model = answering(subject.hf, inputs)
    for part in generating(model):
        part.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0)
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=GREEDY_TOKENS, do_sample=False)
    return [int(token) for token in out[0, inputs["input_ids"].shape[1] :]]


def _hf_decoded(subject: Subject, inputs: Any) -> list[int]:
    """Greedy tokens of an encoder-decoder model: its own `generate` may start, and forbid tokens, as it likes."""
    import torch

    given = dict(inputs)
    ids, start = given.pop("decoder_input_ids"), inputs["decoder_input_ids"].shape[1]
    with torch.inference_mode():
        encoded = subject.hf.get_encoder()(**given)
        for _ in range(GREEDY_TOKENS):
            logits = subject.hf(encoder_outputs=encoded, decoder_input_ids=ids).logits[:, -1:]
            ids = torch.cat((ids, logits.argmax(-1)), dim=1)
    return [int(token) for token in ids[0, start:]]


# ---- media -----------------------------------------------------------------------------------------------------------


def _media_law(subject: Subject, compute: Callable[[Sample], Tensor], cause: Callable[[Sample, list[int]], str]) -> str:
    import torch

    def wrong(sample: Sample) -> tuple[list[int], str]:
        with torch.inference_mode():
            inputs = subject.hf_inputs(sample)
            expected = answering(subject.hf, inputs)(**inputs).logits[0]
        return distances(compute(sample), expected)

    def breaks(sample: Sample) -> bool:
        try:
            return bool(wrong(sample)[0])
        except Exception:  # a smaller prompt may be one that nobody serves, such as an empty one
            return False

    samples = sorted(all_media_samples(subject), key=lambda sample: len(sample.items))
    for sample in samples:
        subject.trying = subject.describe_sample(sample)
        if wrong(sample)[0]:
            least = smallest(sample, breaks, tries=20)
            positions, what = wrong(least)
            raise Broken(
                f"{what}; first at position {positions[0]}",
                smallest=subject.describe_sample(least),
                cause=cause(least, positions),
            )
    return f"{len(samples)} prompts with up to {max(len(s.items) for s in samples)} items"


@law(
    "L4.media-reference",
    "With media, the model by itself gives transformers' logits.",
    needs=("L4.logits-reference", "L2.ids-equal-hf", "L2.placeholder-rows"),
)
def media_reference(subject: Subject) -> str:
    from ..reference import reference_logits

    def cause(sample: Sample, wrong: list[int]) -> str:
        return _media_cause(subject.processed(sample), wrong)

    return _media_law(subject, lambda s: reference_logits(subject.reference, subject.processed(s)), cause)


def _media_cause(prompt: ProcessedPrompt, wrong: list[int]) -> str:
    first = prompt.items[0].placeholder if prompt.items else None
    if first is None or wrong[0] < first.offset:
        return "wrong before the first item: the text path of a model that takes media"
    return (
        "text alone is right, and it goes wrong where the media begin: the encoder (which layer, which tokens of it), the "
        "projector, a scale of the embeddings, or where get_input_embeddings puts them"
    )


@law(
    "L4.media-engine",
    "With media, the engine gives transformers' logits.",
    needs=("L4.media-reference", "L4.logits-engine"),
)
def media_engine(subject: Subject) -> str:
    samples = all_media_samples(subject)
    made = dict(zip(samples, subject.opened.logits([subject.prompt_of(sample) for sample in samples])))

    def compute(sample: Sample) -> Tensor:
        return made[sample] if sample in made else subject.opened.logits([subject.prompt_of(sample)])[0]

    return _media_law(subject, compute, lambda sample, _: engine_cause(alone=sample not in made))


@law("L4.media-greedy", "With media, the engine's greedy tokens are those of transformers.", needs=("L4.media-engine",))
def media_greedy(subject: Subject) -> str:
    samples = all_media_samples(subject)
    room = subject.seq_len - GREEDY_TOKENS
    fitting = [s for s in samples if len(subject.processed(s).prompt_token_ids) < room]
    prompts = [subject.prompt_of(sample) for sample in fitting]
    inputs = [subject.hf_inputs(sample) for sample in fitting]
    return _same_tokens(subject, prompts, inputs, [subject.describe_sample(sample) for sample in fitting])


# ---- components ------------------------------------------------------------------------------------------------------


@law("L4.hidden-states", "A component's hidden states are transformers', layer by layer.", needs=("L1.weights",))
def hidden_states(subject: Subject) -> str:
    import torch

    subject.require("component")
    x = items_of_component(subject)
    asked = [0, 1, -2, -1]
    with torch.inference_mode():
        theirs = subject.hf(x, output_hidden_states=True)
        pairs = {f"layer {i}": (a, theirs.hidden_states[i]) for i, a in zip(asked, subject.reference(x, layers=asked))}
        pairs["the last layer"] = (subject.reference(x), theirs.last_hidden_state)
        if torch.equal(theirs.hidden_states[-1], theirs.last_hidden_state) and _has_last_norm(subject, x):
            del pairs["layer -1"]  # transformers shows no state between the last layer and the norm
        # Some towers lay the items end to end in one row of a batch.
        second = theirs.last_hidden_state.flatten(0, -2).chunk(3)[1]
        pairs["one item of three"] = (subject.reference(x[1:2]), second)
    for name, (ours, expected) in pairs.items():
        wrong, what = distances(ours.flatten(0, -2), expected.flatten(0, -2))
        if wrong:
            before = (
                "the embedding and its norm" if name == "layer 0" else "that layer, or which states `layers` counts"
            )
            raise Broken(
                what.replace("logits", f"the states of {name}"), smallest=f"a batch {tuple(x.shape)}", cause=before
            )
    return f"{len(pairs)} states of 3 items"


def _has_last_norm(subject: Subject, x: Tensor) -> bool:
    """Whether the component does something to the last layer's states."""
    import torch

    return not torch.equal(subject.reference(x), subject.reference(x, layers=[-1])[0])


def items_of_component(subject: Subject) -> Tensor:
    """Three random items, as a component takes them: `(3, …)`."""
    import torch

    return torch.randn(3, *_shape_of_item(subject), generator=torch.Generator().manual_seed(0))


def _shape_of_item(subject: Subject) -> tuple[int, ...]:
    """What a component takes of one item."""
    config, role = subject.config, subject.record.role
    if role == "vision-encoder":
        side = config.image_size if isinstance(config.image_size, (list, tuple)) else [config.image_size] * 2
        return (config.num_channels, *side)
    if role == "audio-encoder" and hasattr(config, "num_mel_bins"):
        return (config.num_mel_bins, 2 * config.max_source_positions)
    raise NotApplicable(f"the kit knows no inputs for a component with the role {role} yet")


LAWS = (
    logits_reference,
    logits_engine,
    greedy,
    media_reference,
    media_engine,
    media_greedy,
    hidden_states,
)
