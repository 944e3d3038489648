"""An embedding that reads the packed weight of its head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.bind import bind, unbind
from core.kernels._lanes import DOTS_BF16
from core.kernels.linear_compiled import CompiledPackedLinear
from core.kernels.tied import packed_table
from core.step import StepHolder
from sdk.layers import ParallelLMHead, VocabParallelEmbedding

needs_dots = pytest.mark.skipif(not DOTS_BF16, reason="the processor multiplies no pairs of bfloat16")


class Ends(nn.Module):
    """The two ends of a language model, and who else has their weight."""

    def __init__(self, rows: int, width: int, dtype: torch.dtype, others: int = 0) -> None:
        super().__init__()
        self.embedding, self.head = VocabParallelEmbedding(rows, width), ParallelLMHead(rows, width)
        self.embedding.weight = nn.Parameter(torch.randn(rows, width).to(dtype), requires_grad=False)
        self.head.tie_weights(self.embedding)
        self.others = nn.ModuleList(VocabParallelEmbedding(rows, width) for _ in range(others))
        for other in self.others:
            other.weight = self.embedding.weight


@needs_dots
@pytest.mark.parametrize("rows", [64, 300])
@pytest.mark.parametrize(
    "ids",
    [torch.tensor([0, 1, 62, 63, 63]), torch.arange(60).view(3, 20), torch.tensor([5], dtype=torch.int32), torch.arange(0)],
    ids=["edges", "two dimensions", "int32", "none"],
)  # fmt: skip
def test_rows_are_those_of_the_plain_table(rows: int, ids: Tensor) -> None:
    weight = torch.randn(rows, 256).to(torch.bfloat16)
    table = packed_table(CompiledPackedLinear(weight, None))
    assert table is not None
    assert torch.equal(table(ids), F.embedding(ids, weight))
    last = torch.tensor([rows - 1, rows - 2])
    assert torch.equal(table(last), weight[last])


@needs_dots
def test_what_is_no_row_is_no_number_and_reads_nothing() -> None:
    table = packed_table(CompiledPackedLinear(torch.ones(70, 256, dtype=torch.bfloat16), None))
    assert table is not None
    found = table(torch.tensor([-1, 69, 70, 2**40]))
    assert found.isnan().all(dim=1).tolist() == [True, False, True, True]


@needs_dots
def test_the_plain_weight_of_a_tied_head_is_freed() -> None:
    model = Ends(300, 256, torch.bfloat16)
    ids, x, weight = torch.tensor([299, 0, 17]), torch.randn(3, 256).to(torch.bfloat16), model.head.weight
    bind(model, {}, StepHolder(), {})
    assert [p.numel() for p in model.parameters()] == [0]
    assert torch.equal(model.embedding(ids), weight[ids])
    torch.testing.assert_close(model.head(x), F.linear(x, weight), rtol=0.02, atol=0.1)
    unbind(model)


@pytest.mark.parametrize(("dtype", "others"), [(torch.float32, 0), (torch.bfloat16, 1)])
def test_it_is_kept_where_somebody_else_reads_it(dtype: torch.dtype, others: int) -> None:
    model = Ends(300, 256, dtype, others)
    weight = model.head.weight
    bind(model, {}, StepHolder(), {})
    ids = torch.tensor([299, 0, 17])
    assert model.embedding.weight is weight
    assert all(torch.equal(e(ids), weight[ids]) for e in (model.embedding, *model.others))
