"""Level 3: dummy inputs are the worst case, and what the plugin counts is what processing gives."""

from __future__ import annotations

from collections.abc import Iterator

from ...multimodal.info import BaseProcessingInfo
from ..law import Broken, NotApplicable, law
from ..sizes import Item, Meter, processed_dummy, volume
from ..subject import Subject

MANY = 4
"""How many items stand for "any number" of them."""


def _counts(limit: int | None) -> list[int]:
    """Numbers of items to try: one, two, and as many as a prompt may have."""
    most = MANY if limit is None else min(limit, 4 * MANY)
    return sorted({n for n in (1, 2, most) if 0 < n <= most})


def _meters(subject: Subject) -> Iterator[tuple[Meter, list[int]]]:
    subject.require("media")
    for modality, limit in subject.limits.items():
        if modality != subject.encoder_modality:
            yield subject.meter(modality), _counts(limit)
    if set(subject.limits) == {subject.encoder_modality}:
        raise NotApplicable(f"its encoder takes {subject.encoder_modality}, which takes no tokens of the prompt")


def _promised(subject: Subject, modality: str, count: int) -> int:
    info = subject.processor.info
    promises = info.get_mm_max_tokens_per_item(subject.seq_len, {modality: count})
    if modality not in promises:
        raise Broken(
            f"get_mm_max_tokens_per_item says nothing about {modality}, which get_supported_mm_limits names",
            smallest=f"mm_counts {{{modality!r}: {count}}}",
            cause="return the most tokens one item can take, for each modality",
        )
    return int(promises[modality])


@law("L3.dummy-processed", "Dummy inputs of one item and of many are processed and become as many items.")
def dummy_processed(subject: Subject) -> str:
    subject.require("media")
    if subject.encoder_modality is not None:
        processed_dummy(subject, {subject.encoder_modality: 1})
        return f"1 {subject.encoder_modality}"
    tried = [{meter.modality: count} for meter, counts in _meters(subject) for count in counts]
    together = {modality: _counts(limit)[-1] for modality, limit in subject.limits.items() if limit != 0}
    tried += [together] if len(together) > 1 else []
    for counts in tried:
        processed_dummy(subject, counts)
    return ", ".join(" and ".join(f"{n} {modality}" for modality, n in counts.items()) for counts in tried)


@law(
    "L3.dummy-tokens",
    "Each dummy item takes the tokens that get_mm_max_tokens_per_item promises.",
    needs=("L3.dummy-processed",),
)
def dummy_tokens(subject: Subject) -> str:
    said = []
    for meter, counts in _meters(subject):
        for count in counts:
            promised = _promised(subject, meter.modality, count)
            for index, taken in enumerate(meter.of_dummy({meter.modality: count})):
                if taken.tokens != promised:
                    raise Broken(
                        f"dummy {meter.modality} {index} takes {taken.tokens} tokens ({taken.rows} of them with "
                        f"embeddings), get_mm_max_tokens_per_item promises {promised}",
                        smallest=f"mm_counts {{{meter.modality!r}: {count}}}",
                        cause="get_dummy_mm_data does not build the largest item; or the promise counts something else "
                        "than the tokens that _get_prompt_updates writes, those without embeddings included",
                    )
        said.append(f"{promised} tokens for {meter.modality}")
    return ", ".join(said)


@law(
    "L3.worst-case",
    "No item of any size takes more tokens than the dummy inputs, or than get_mm_max_tokens_per_item promises.",
    needs=("L3.dummy-processed",),
)
def worst_case(subject: Subject) -> str:
    said, unknown = [], []
    for meter, counts in _meters(subject):
        try:
            for count in counts:
                _below(meter, count)
        except NotApplicable as reason:
            unknown.append(str(reason))
            continue
        item, taken = meter.worst()
        said.append(f"{taken.tokens} tokens at most, for {meter.describe(item)}; {_looked_at(meter)}")
    if not said:
        raise NotApplicable("; ".join(unknown))
    return "; ".join([*said, *unknown])


def _below(meter: Meter, count: int) -> None:
    dummy = min(taken.tokens for taken in meter.of_dummy({meter.modality: count}))
    promised = _promised(meter.subject, meter.modality, count)
    bound, name = min((dummy, "the dummy has"), (promised, "get_mm_max_tokens_per_item promises"))

    def over(item: Item) -> bool:
        taken = meter.take(item, count)
        return taken is not None and taken.tokens > bound

    worst, _ = meter.worst(count)
    if over(worst):
        least = meter.smallest(min(filter(over, meter.tried(count)), key=volume), over)
        taken, most = meter.take(least, count), meter.take(worst, count)
        assert taken is not None
        assert most is not None
        beside = f", {count} of them in a prompt," if count > 1 else ""
        raise Broken(
            f"{meter.describe(least)}{beside} takes {taken.tokens} tokens, {name} {bound}",
            smallest=f"{meter.describe(least)}; the worst of those tried is {meter.describe(worst)} with {most.tokens}",
            cause="get_image_size_with_most_features, or what the dummy builder takes for the largest item: memory "
            "would be reserved for less than a request can bring"
            if meter.modality == "image"
            else "what the dummy builder takes for the largest item: memory would be reserved for less than a request "
            "can bring",
        )


@law(
    "L3.analytic",
    "get_num_image_tokens tells for every size the rows of embeddings that processing gives.",
    needs=("L3.dummy-processed",),
)
def analytic(subject: Subject) -> str:
    subject.require("media")
    info = subject.processor.info
    if "image" not in subject.limits:
        raise NotApplicable(f"only pictures are counted by a hook, and it takes {', '.join(subject.limits)}")
    if type(info).get_num_image_tokens is BaseProcessingInfo.get_num_image_tokens:
        raise NotApplicable("get_num_image_tokens is not written: nothing is told without processing")
    meter = subject.meter("image")

    def told(item: Item) -> int:
        return int(info.get_num_image_tokens(image_width=item.size[0], image_height=item.size[1]))

    def wrong(item: Item) -> bool:
        taken = meter.take(item)
        return taken is not None and told(item) != taken.rows

    for item in meter.items():
        if wrong(item):
            least = meter.smallest(item, wrong)
            taken = meter.take(least)
            assert taken is not None
            raise Broken(
                f"{meter.describe(least)} gives {taken.rows} rows of embeddings, get_num_image_tokens says {told(least)}",
                smallest=meter.describe(least),
                cause="how the HF processor rounds, crops or fits a picture into its largest size; the numbers that "
                "take no embeddings (separators) do not count here",
            )
    return _looked_at(meter)


def _looked_at(meter: Meter) -> str:
    """How many items were tried, and whether the processor refused some."""
    tried = f"{sum(1 for _ in meter.items())} sizes"
    if not meter.refused:
        return tried
    item = next(iter(meter.refused))
    return f"{tried}, {len(meter.refused)} of them refused, such as {meter.describe(item)}"


LAWS = (dummy_processed, dummy_tokens, worst_case, analytic)
