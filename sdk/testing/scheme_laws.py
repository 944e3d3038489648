"""The laws about a quantization scheme: what it says, what it does to a layer, and a model that runs with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InvalidConfigError
from ..layers import VocabParallelEmbedding
from ..layers.linear import Linear
from .law import Broken, Law, law
from .levels import level0_static
from .needles import TOKENS, needles, others, unlike
from .reference import assert_close
from .runtime import Settings
from .schemes import SchemeSubject, names_of
from .subject import Subject

WORST = 0.5
"""Of the spread of a product's values, the most that a scheme may lose; noise loses 1.4 of it."""
ROWS = 7


def _scheme_law(
    id_: str, statement: str, *, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[SchemeSubject], str]], Law]:
    """`law`, for a check that looks at a scheme."""
    return lambda check: law(id_, statement, needs=needs)(lambda subject: check(_as_scheme(subject)))


def _as_scheme(subject: Subject) -> SchemeSubject:
    assert isinstance(subject, SchemeSubject)
    return subject


@_scheme_law(
    "Q1.options", "It is found under its name, and refuses options that it does not know by InvalidConfigError."
)
def options(subject: SchemeSubject) -> str:
    subject.made  # noqa: B018  made from its name alone
    given = {"quant_method": subject.scheme, "no_such_option": 1}
    try:
        subject.scheme_class.from_config(given)
    except InvalidConfigError:
        return f"{subject.scheme_class.__module__}:{subject.scheme_class.__qualname__}"
    except Exception as error:
        raise Broken(
            f"from_config raised {type(error).__name__} for an unknown option: {error}",
            smallest=str(given),
            cause="turn it into sdk.errors.InvalidConfigError, which names the option",
        ) from error
    raise Broken(
        "from_config takes an option that nobody knows",
        smallest=str(given),
        cause="a misspelt option, or a checkpoint's that this scheme cannot do, is lost in silence: look at every key",
    )


@_scheme_law(
    "Q1.choice", "It changes linear layers alone, the same for all parts of a fused one, each time it is asked."
)
def choice(subject: SchemeSubject) -> str:
    changed = 0
    for path, layer in subject.reference.named_modules():
        if not isinstance(layer, (Linear, VocabParallelEmbedding)):
            continue
        names = names_of(path, layer)
        answers = [subject.made.get_quant_method(layer, name) for name in (*names, *names)]
        if any(answer != answers[0] for answer in answers):
            raise Broken(
                f"get_quant_method gives different answers for {path}",
                smallest=", ".join(names),
                cause="methods are equal where their class and attributes are: keep in one only what it is made with",
            )
        if answers[0] is not None and not isinstance(layer, Linear):
            raise Broken(
                f"it wants to change {path}, which is looked up and not multiplied",
                smallest=path,
                cause="get_quant_method must return None for what is no sdk.layers.linear.Linear",
            )
        changed += answers[0] is not None
    if not changed:
        raise Broken("it changes no layer of a model", cause="get_quant_method returns None for every linear layer")
    return f"{changed} layers"


@_scheme_law("Q1.smaller", "What it changes takes less memory.", needs=("Q1.choice",))
def smaller(subject: SchemeSubject) -> str:
    before = after = 0
    for chosen in subject.chosen:
        was, now = _bytes(chosen.layer), _bytes(chosen.quantized())
        if now >= was:
            raise Broken(
                f"{chosen.name} took {was} bytes in float32, and takes {now}",
                smallest=chosen.name,
                cause="the weight in full precision is still a parameter of the layer, or is kept beside what was made of it",
            )
        before, after = before + was, after + now
    return f"{before} bytes in float32, now {after}"


@_scheme_law("Q4.close", "Products are close to those of the full weight.", needs=("Q1.choice",))
def close(subject: SchemeSubject) -> str:
    lost = 0.0
    for chosen in subject.chosen:
        x = _rows(chosen.layer.input_size)
        theirs = torch.nn.functional.linear(x, chosen.layer.weight, chosen.layer.bias)
        ours = chosen.quantized().product(x)
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise Broken(
                f"the product is {tuple(ours.shape)} in {ours.dtype}, not {tuple(theirs.shape)} in {theirs.dtype}",
                smallest=f"{chosen.name}, {ROWS} rows",
                cause="apply returns (..., output_size) in the dtype of x",
            )
        error = float((ours - theirs).pow(2).mean().sqrt() / theirs.std())
        if not error <= WORST:
            raise Broken(
                f"the products of {chosen.name} are off by {error:.2f} of their spread",
                smallest=f"{chosen.name}, {ROWS} rows",
                cause="a scale on the wrong side, values unpacked in another order than they were packed, or a bias left out",
            )
        lost = max(lost, error)
    return f"{len(subject.chosen)} layers, off by at most {lost:.3f} of their spread"


@_scheme_law(
    "Q4.rows",
    "A row's product depends on that row alone; there may be none, or dimensions before.",
    needs=("Q4.close",),
)
def rows(subject: SchemeSubject) -> str:
    for chosen in subject.chosen:
        layer, x = chosen.quantized(), _rows(chosen.layer.input_size)
        alone = torch.cat([layer.product(row[None]) for row in x])
        for shown, together in (
            (f"{ROWS} rows", layer.product(x)),
            (f"{ROWS} rows beside a very large one", layer.product(torch.cat((x, 100 * x[:1])))[:ROWS]),
            (f"{ROWS} rows in a batch of one", layer.product(x[None])[0]),
        ):
            _same(together, alone, f"{chosen.name}, {shown}")
        layer.product(x[:0])
    return f"{len(subject.chosen)} layers"


def _same(ours: Tensor, theirs: Tensor, shown: str) -> None:
    try:
        assert_close(ours, theirs)
    except AssertionError as error:
        raise Broken(
            f"a row's product changes with its company: {error}",
            smallest=shown,
            cause="something is computed over all rows, such as one scale for the whole input: requests share a batch",
        ) from None


@_scheme_law(
    "Q5.engine",
    "A model that runs with it has the same answers alone, within 32 others and in chunks of 7.",
    needs=("Q4.rows",),
)
def engine(subject: SchemeSubject) -> str:
    ours, company = needles(subject), others(subject)
    with subject.opened_quantized(Settings(step_sequences=len(ours) + len(company))) as opened:
        alone = [opened.generate([needle.make()], TOKENS)[0] for needle in ours]
        together = opened.generate([needle.make() for needle in (*ours, *company)], TOKENS)[: len(ours)]
    with subject.opened_quantized(Settings(step_tokens=7)) as opened:
        chunked = opened.generate([needle.make() for needle in ours], TOKENS)
    for when, found in (("within 32 others", together), ("in chunks of 7", chunked)):
        for needle, made, expected in zip(ours, found, alone):
            what = unlike(made, expected)
            if what:
                raise Broken(
                    f"{what}, {when}", smallest=needle.name, cause="apply looks at more than a row and the layer"
                )
    return f"{len(ours)} prompts, {TOKENS} tokens each"


def _rows(width: int) -> Tensor:
    return torch.randn(ROWS, width, generator=torch.Generator().manual_seed(0))


def _bytes(layer: Linear) -> int:
    return sum(t.numel() * t.element_size() for t in [*layer.parameters(recurse=False), *layer.buffers(recurse=False)])


LAWS = (
    level0_static.no_core,
    level0_static.remote,
    level0_static.pickle,
    level0_static.evaluation,
    level0_static.network,
    level0_static.no_cuda,
    options,
    choice,
    smaller,
    close,
    rows,
    engine,
)
