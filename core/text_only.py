"""Loading a multi-modal model for text alone: what only media need is taken out before any of it is allocated or read.

No author writes anything for it. The model stands on the meta device, where its text path costs nothing to run; parameters
that it never touches, and that are no part of its language model, are the tower's and the projector's.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sdk.interfaces import Encoder, Model
from sdk.layers import Attention
from sdk.spec import Capabilities
from sdk.weights import NameResolver

logger = logging.getLogger(__name__)


def takes_no_media(capabilities: Capabilities, limits: Mapping[str, int]) -> bool:
    """Whether the user allows no item of any modality that the model takes, and the model can do without."""
    modalities = capabilities.modalities
    return capabilities.lm_only and bool(modalities) and all(limits.get(m) == 0 for m in modalities)


@dataclass(frozen=True)
class LeftOut:
    """What was taken out of a model.

    Attributes:
        paths: Modules, and parameters of modules that stay.
        resolve: The checkpoint's names → the model's, as they were before.
    """

    paths: tuple[str, ...] = ()
    resolve: Callable[[str], str | None] = field(default=lambda name: name)

    def covers(self, source: str) -> bool:
        """Whether a tensor of the checkpoint, by its name there, is of no use to what is left."""
        name = self.resolve(source)
        return name is not None and any(name == path or name.startswith(f"{path}.") for path in self.paths)


class Absent(nn.Module):
    """In the place of a part that was left out."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(f"{self.path} was left out: the engine was started for text alone")


def leave_out_media(model: Model) -> LeftOut:
    """Take what only media need out of a model on the meta device.

    A model that loads its weights by itself stays whole: only it knows which of the checkpoint's names are whose.
    """
    if type(model).load_weights is not Model.load_weights:
        logger.warning("%s loads its weights by itself, so its encoder is loaded with it", type(model).__qualname__)
        return LeftOut()
    needed = _needed_by_text(model)
    resolve = NameResolver(model)
    paths = list(_take_out(model, "", needed))
    return LeftOut(tuple(paths), resolve)


def _needed_by_text(model: Model) -> set[int]:
    """Ids of the parameters that must stay."""
    language_model: nn.Module = model.get_language_model()  # type: ignore[operator]
    needed = {id(p) for p in language_model.parameters()}
    everything = dict(model.named_parameters(remove_duplicate=False))
    try:
        read = _read_by_text(model)
    except Exception as e:  # a text path with shapes that depend on values cannot run on the meta device
        logger.info("the text path of %s does not run on the meta device (%s)", type(model).__qualname__, e)
        towers = [m for m in model.modules() if isinstance(m, Encoder)]
        of_towers = {id(p) for tower in towers for p in tower.parameters()}
        return needed | ({id(p) for p in everything.values()} - of_towers)
    return needed | {id(everything[name]) for name in read}


def _read_by_text(model: Model) -> set[str]:
    """Names of the parameters that a step without media reads: found by running one, of two tokens, on the meta device."""
    twin = copy.deepcopy(model).to("meta")
    for layer in twin.modules():
        if isinstance(layer, Attention):  # it has no parameters, and rotary tables look at values
            layer.fill(lambda q, k, v, positions=None: q.flatten(-2))
    names = {id(p): name for name, p in twin.named_parameters(remove_duplicate=False)}
    tokens = torch.zeros(2, dtype=torch.long, device="meta")
    with torch.inference_mode(), _Reads() as reads:
        embeds = twin.get_input_embeddings(tokens)
        twin.compute_logits(twin(tokens, tokens))
        twin(None, tokens, inputs_embeds=embeds)
    return {names[i] for i in reads.seen if i in names}


class _Reads(TorchFunctionMode):
    """Notes every parameter that a torch function is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, nn.Parameter))
        return func(*args, **(kwargs or {}))


def _take_out(module: nn.Module, path: str, needed: set[int]) -> Iterable[str]:
    """Take out the largest parts none of whose parameters are needed; yields their paths."""
    for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
        if id(parameter) not in needed:
            module.register_parameter(name, None)
            yield _joined(path, name)
    for name, child in list(module.named_children()):
        own: list[Tensor] = list(child.parameters())
        if own and all(id(p) not in needed for p in own):
            setattr(module, name, Absent(_joined(path, name)))
            yield _joined(path, name)
        elif own:
            yield from _take_out(child, _joined(path, name), needed)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
