"""Level 5: an answer depends on its prompt and on nothing else: not on pages, chunks, company, caches or preemption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..decoder_prompts import for_engine
from ..diagnosis import engine_cause
from ..law import Broken, NotApplicable, law
from ..needles import TOKENS, Needle, media_needles, needles, others, random_item, shortest, unlike, with_item
from ..runtime import Completion, Settings
from ..samples import random_ids
from ..subject import Subject

if TYPE_CHECKING:
    from ...multimodal.processor import ProcessedPrompt
    from ..runtime import OpenModel, Prompt

CHUNKS = (64, 7, 1)
PAGES = (64, 3, 1)
"""Besides the 16 of the answers that are compared with."""
FIRST = 8
"""How many tokens of an answer are looked at where the prompt is what counts."""
CROWD = 6
"""How many others compete for a pool that is barely large enough."""


def _alone(subject: Subject, needle: Needle) -> Completion:
    """The answer of an engine that has nothing else to do and remembers nothing."""
    if needle.name not in subject.answers:
        subject.trying = needle.name
        subject.answers[needle.name] = subject.opened.generate([needle.make()], TOKENS)[0]
    return subject.answers[needle.name]


def _same(subject: Subject, opened: OpenModel, needle: Needle, when: str, cause: str) -> Completion:
    """The first tokens of an answer, which must be those that it has in an engine that remembers nothing."""
    found = opened.generate([needle.make()], FIRST)[0]
    what = unlike(found, _alone(subject, needle))
    if what:
        raise Broken(f"{what}, {when}", smallest=needle.name, cause=cause)
    return found


def _all_same(subject: Subject, opened: OpenModel, asked: Sequence[Needle], when: str, cause: str) -> None:
    """The first tokens of the answers to several prompts at once, which must be those that each has alone."""
    subject.trying = f"{len(asked)} prompts in one batch, {when}"
    made = opened.generate([needle.make() for needle in asked], FIRST)
    wrong = [n for n, found in zip(asked, made) if unlike(found, _alone(subject, n))]

    def differs(needle: Needle) -> str:
        return unlike(opened.generate([needle.make()], FIRST)[0], _alone(subject, needle))

    for needle in filter(differs, wrong):  # those that are wrong without the others say more
        least = shortest(subject, needle, lambda n: bool(differs(n)))
        raise Broken(f"{differs(least)}, {when}", smallest=least.name, cause=cause)
    for needle in wrong:
        what = unlike(made[asked.index(needle)], _alone(subject, needle))
        beside = f"{needle.name}, beside {len(asked) - 1} other prompts"
        raise Broken(f"{what}, {when}", smallest=beside, cause=cause)


@law(
    "L5.paged",
    "The engine, with its pages, answers as the model by itself does, which computes everything anew.",
    needs=("L1.weights",),
)
def paged(subject: Subject) -> str:
    import torch

    from ..reference import reference_logits

    found = needles(subject)
    for needle in found:
        made = _alone(subject, needle)
        prompt = subject.opened.process(needle.make())
        logits = reference_logits(subject.reference, prompt, made.token_ids[:-1])
        logprobs = torch.log_softmax(logits[len(prompt.prompt_token_ids) - 1 :].float(), dim=-1)
        best = logprobs.max(dim=-1)
        what = unlike(made, Completion(tuple(best.indices.tolist()), tuple(best.values.tolist())))
        if what:
            cause = engine_cause(alone=True, decoding=not what.startswith("token 0"))
            raise Broken(f"{what}, from the model by itself", smallest=needle.name, cause=cause)
    cause = (
        "something that the model or the engine keeps of another prompt, such as a state that does not begin at zero"
    )
    _same(subject, subject.opened, found[0], "when it is asked again after others", cause)
    return f"{len(found)} prompts, {TOKENS} tokens each"


@law("L5.chunks", "Prompts computed in chunks of 64, 7 or 1 tokens have the same answers.", needs=("L5.paged",))
def chunks(subject: Subject) -> str:
    if subject.capabilities.chunked_prefill == "no":
        raise NotApplicable("its capabilities say chunked_prefill='no': the engine computes its prompts whole")
    cause = (
        "forward takes the tokens that it is given for a whole prompt: positions that it makes itself, or something computed "
        "over all tokens (a mean, a mask) instead of by the SDK's Attention; a tower that depends on its neighbours"
    )
    asked = needles(subject)
    for size in CHUNKS:
        with subject.opened_with(Settings(step_tokens=size)) as opened:
            _all_same(subject, opened, asked, f"in chunks of {size}", cause)
    return f"{len(asked)} prompts in chunks of {', '.join(map(str, CHUNKS))}"


@law("L5.pages", "Pages of 1, 3 or 64 tokens give the same answers as pages of 16.", needs=("L5.paged",))
def pages(subject: Subject) -> str:
    cause = "the engine's paged attention with this page size, or a layer that reads pages by itself"
    asked = needles(subject)
    for size in PAGES:
        with subject.opened_with(Settings(page_size=size)) as opened:
            _all_same(subject, opened, asked, f"with pages of {size}", cause)
    return f"{len(asked)} prompts with pages of {', '.join(map(str, PAGES))}"


@law("L5.batch", "A prompt has the same answer alone and within 32 others.", needs=("L5.paged",))
def batch(subject: Subject) -> str:
    company, ours = others(subject), needles(subject)
    subject.trying = f"{len(company) + len(ours)} prompts in one batch"
    with subject.opened_with(Settings(step_sequences=len(company) + len(ours))) as opened:
        for needle, made in zip(ours, _within(opened, company, ours, TOKENS)):
            what = unlike(made, _alone(subject, needle))
            if not what:
                continue

            def differs(beside: Sequence[Needle], needle: Needle = needle) -> str:
                return unlike(_within(opened, beside, [needle], FIRST)[0], _alone(subject, needle))

            beside = _fewest(company, lambda some: bool(differs(some)))
            raise Broken(
                f"{differs(beside) or what}, within {len(beside)} others",
                smallest=f"{needle.name}, beside {beside[0].name}" if len(beside) == 1 else needle.name,
                cause=engine_cause(alone=False) + "; with media, an encoder that mixes the items of a batch",
            )
    return f"{len(ours)} prompts within {len(company)} others"


def _within(opened: OpenModel, company: Sequence[Needle], ours: Sequence[Needle], tokens: int) -> list[Completion]:
    """The answers to some prompts in the midst of others, all in one batch."""
    half = (len(company) + 1) // 2
    together: list[Prompt] = [n.make() for n in (*company[:half], *ours, *company[half:])]
    return opened.generate(together, tokens)[half : half + len(ours)]


def _fewest(company: Sequence[Needle], breaks: Callable[[Sequence[Needle]], bool]) -> Sequence[Needle]:
    """As few of the others as halving them shows still to make the difference."""
    while len(company) > 1:
        half = len(company) // 2
        smaller = next((part for part in (company[:half], company[half:]) if breaks(part)), None)
        if smaller is None:
            break
        company = smaller
    return company


@law("L5.preemption", "A prompt whose place is taken away and computed anew has the same answer.", needs=("L5.paged",))
def preemption(subject: Subject) -> str:
    ours = [*needles(subject), *others(subject)[CROWD : 2 * CROWD]]
    settings, where = _too_small(subject, ours)
    with subject.opened_with(settings) as opened:
        made = opened.generate([n.make() for n in ours], TOKENS)
    for needle, found in zip(ours, made):
        what = unlike(found, _alone(subject, needle))
        if what:
            raise Broken(
                f"{what}, after it lost its place {found.preemptions} times",
                smallest=f"{needle.name}, among {len(ours)} prompts {where}",
                cause="something that the model keeps from the first time, or that differs between a prompt and tokens "
                "generated after it: computed anew, both are computed as one prompt",
            )
    lost = sum(found.preemptions for found in made)
    if not lost:
        raise Broken(f"no sequence lost its place, though there were {len(ours)} {where}", cause="the engine")
    return f"{len(ours)} prompts {where}, {lost} preemptions"


def _too_small(subject: Subject, ours: Sequence[Needle]) -> tuple[Settings, str]:
    """How to open the checkpoint so that prompts have to give way, and what that is to people."""
    if not {"full", "sliding"} & set(subject.capabilities.attention):  # no pages that could run out
        return Settings(interrupted=True, step_sequences=len(ours)), "interrupted by urgent ones"
    size = 8
    longest = max(len(subject.opened.process(n.make()).prompt_token_ids) for n in ours) + TOKENS
    pool = -(-longest // size) * size
    return Settings(page_size=size, pool_tokens=pool, step_sequences=len(ours)), f"in a pool of {pool} tokens"


@law("L5.prefix", "A prompt whose beginning is known from another has the same answer.", needs=("L5.paged",))
def prefix(subject: Subject) -> str:
    if not subject.capabilities.prefix_caching:
        raise NotApplicable("its capabilities say prefix_caching=False: the engine shares no pages")
    cause = (
        "what a token's keys and values depend on besides the tokens and items up to it: something later in the prompt, the "
        "prompt's length, a state outside the pages. Where that is meant, capabilities say prefix_caching=False"
    )
    known, hits = needles(subject), 0
    with subject.opened_with(Settings(caching=True)) as opened:
        for needle in known:
            opened.generate([needle.make()], 1)
        for needle in known:
            found = _same(subject, opened, needle, "when it is asked again after others", cause)
            prompt = subject.opened.process(needle.make())
            if _can_begin_later(prompt, subject.capabilities.chunked_prefill) and not found.cached_tokens:
                raise Broken(
                    f"asked again, none of {len(prompt.prompt_token_ids)} tokens came from pages at hand",
                    smallest=needle.name,
                    cause="the engine; or items that are processed differently each time",
                )
            hits += found.cached_tokens
        further = _continued(subject)
        for needle in further:
            found = _same(subject, opened, needle, "after a prompt that begins alike", cause)
            hits += found.cached_tokens
    return f"{len(known) + len(further)} prompts, {hits} tokens of them from pages at hand"


def _can_begin_later(prompt: ProcessedPrompt, chunked_prefill: str) -> bool:
    """Whether some full page ends where the rest of the prompt may be computed by itself."""
    ends = range(Settings.page_size, len(prompt.prompt_token_ids), Settings.page_size)
    places = [item.placeholder for item in prompt.items] if chunked_prefill != "any" else []
    within = [any(p.offset < end < p.offset + p.length for p in places) for end in ends]
    return chunked_prefill != "no" and not all(within)


def _continued(subject: Subject) -> list[Needle]:
    """Prompts that begin like earlier ones: with another end, and with the answer and a further question."""
    long = needles(subject)[2]
    ids, answer = subject.opened.process(long.make()).prompt_token_ids, _alone(subject, long).token_ids
    more = random_ids(subject, 9, seed=9)
    found = [
        Needle("a text with another end", lambda: for_engine(subject, [*ids[:-5], *more])),
        Needle("a second turn", lambda: for_engine(subject, [*ids, *answer, *more])),
    ]
    return [needle for needle in found if len(ids) + len(answer) + len(more) + TOKENS <= subject.seq_len]


@law(
    "L5.items",
    "Two different items behind equal token ids have answers of their own, and share nothing.",
    needs=("L5.paged",),
)
def items(subject: Subject) -> str:
    subject.require("media")
    if not media_needles(subject):
        raise NotApplicable("no item is allowed")
    said, unknown = [], []
    for modality in subject.limits:
        try:
            pair = random_item(modality, 1), random_item(modality, 2)
        except NotApplicable as reason:
            unknown.append(str(reason))
            continue
        said.append(_apart(subject, modality, pair))
    if not said:
        raise NotApplicable("; ".join(unknown))
    return "; ".join([*said, *unknown])


def _apart(subject: Subject, modality: str, pair: tuple[object, object]) -> str:
    one, other = with_item(subject, modality, "A", pair[0]), with_item(subject, modality, "B", pair[1])
    ids = [subject.opened.process(n.make()) for n in (one, other)]
    if ids[0].prompt_token_ids != ids[1].prompt_token_ids:
        raise NotApplicable(f"two {modality} items of one size have different token ids: nothing could be confused")
    if not unlike(_alone(subject, one), _alone(subject, other)):
        raise Broken(
            f"two different {modality} items have the same answer, to the last logprob",
            smallest=f"{one.name}, then {other.name}",
            cause="the embeddings do not depend on the item (something kept by shape, or by call), or do not reach the "
            "prompt: get_multimodal_embeddings, get_input_embeddings",
        )
    cause = "something that is kept by the token ids or the shape of an item, and not by its contents"
    with subject.opened_with(Settings(caching=True)) as opened:
        for turn in (one, other, one):
            before = "first" if turn is one else f"after another {modality} behind the same ids"
            found = _same(subject, opened, turn, f"asked {before}", cause)
            begins = ids[1].items[0].placeholder.offset if ids[1].items else 0
            if turn is other and found.cached_tokens > begins:
                raise Broken(
                    f"{found.cached_tokens} tokens come from the pages of another {modality}, which begins at token {begins}",
                    smallest=f"{one.name}, then {other.name}",
                    cause="the engine's key of a page",
                )
        together = [one, other, other, one]
        for turn, found in zip(together, opened.generate([n.make() for n in together], FIRST)):
            what = unlike(found, _alone(subject, turn))
            if what:
                raise Broken(f"{what}, in one batch with another {modality}", smallest=turn.name, cause=cause)
    return f"two {modality} items behind {len(ids[0].prompt_token_ids)} equal ids"


LAWS = (paged, chunks, pages, batch, preemption, prefix, items)
