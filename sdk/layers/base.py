"""`Layer`: a module that works by itself in plain torch and that an engine may fill with a faster kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

Kernel = Callable[..., Any]


class Layer(nn.Module):
    """A building block with a reference and a hole.

    `reference` is plain torch for one sequence without a cache: it is what the layer means. An engine may `fill` the
    layer with a kernel of the same signature; whoever calls the layer cannot tell the difference but in speed. The
    kernel brings whatever state it needs (pages, step tensors), so there is no global context.

    Args:
        prefix: Accepted so that ported code runs. Layers are known by their path in the module tree; a prefix given
            to two layers is an error when the model is bound.
    """

    kernel: Kernel | None = None

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self.prefix = prefix

    def fill(self, kernel: Kernel | None) -> None:
        """Use `kernel` instead of `reference` from now on; `None` empties the hole again."""
        self.kernel = kernel

    def reference(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer computes, in plain torch."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the kernel where there is one, the reference otherwise."""
        kernel = self.kernel
        return self.reference(*args, **kwargs) if kernel is None else kernel(*args, **kwargs)

    def part_rows(self) -> Mapping[str, slice]:
        """Names of the checkpoint's modules that are fused in this one → the rows of each parameter they fill."""
        return {}

    def part_zeros(self) -> Mapping[str, Sequence[slice]]:
        """Parameter of this module → rows of it that no tensor of the checkpoint fills: they are zero."""
        return {}

    def part_tensors(self) -> Mapping[str, tuple[str, slice]]:
        """Names of the checkpoint's tensors below this module → the parameter they fill, and which of its rows.

        Rows are counted over all leading dimensions: those of a stack of matrices run on from one to the next.
        """
        return {}
