"""Leave out what nobody wants: after the last attention, rows that do not become logits (`core.wanted`).

The model's own code stays as it is and sees tensors of the shapes that it expects; products and the last attention compute the
wanted rows, and the others are zero: rows meet in attention alone, and where a module of a plugin's own looks at all of them it
finds numbers. Kernels whose rows depend on how many there are do not take part, so that a result is the same bit by bit.
"""

from __future__ import annotations

from torch import nn

from sdk.layers import Attention, BidirectionalAttention, CrossAttention, StateLayer
from sdk.layers.linear import Linear

from ..step import StepHolder
from .attention import PagedAttention


def narrow_after_last_attention(model: nn.Module, step: StepHolder) -> bool:
    """Have a bound model's kernels do so, in steps that say what is wanted. False: its rows meet in other layers, too."""
    attentions = [module.kernel for module in model.modules() if isinstance(module, Attention)]
    others = (StateLayer, CrossAttention, BidirectionalAttention)
    if not attentions or any(isinstance(module, others) for module in model.modules()):
        return False
    last = attentions[-1]
    if not isinstance(last, PagedAttention) or last.compiled is None:
        return False
    from .linear_compiled import CompiledPackedLinear  # which needs numba, as compiled attention does

    last.is_last = True
    for module in model.modules():
        if isinstance(module, Linear) and isinstance(module.kernel, CompiledPackedLinear):
            module.kernel.step = step
    return True
