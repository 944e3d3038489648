"""State layers by themselves: a sequence may be cut anywhere, sequences do not see each other, a scan is its recurrence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdk.layers import CausalConv1d, MambaMixer, MambaMixer2, ShortConv, StateLayer, StateSpaceDual
from sdk.testing.reference import assert_close
from sdk.testing.tiny import randomize

HIDDEN = 16
EXACT = 1e-5
LAYERS: dict[str, Callable[[], StateLayer]] = {
    "short convolution": lambda: ShortConv(HIDDEN, 3),
    "a convolution of one token": lambda: ShortConv(HIDDEN, 1, bias=True),
    "mamba": lambda: MambaMixer(HIDDEN, 24, 4, 4, 2),
    "mamba with norms": lambda: MambaMixer(HIDDEN, 24, 4, 4, 2, norm_eps=1e-6),
    "mamba 2": lambda: MambaMixer2(HIDDEN, 6, 4, 8, 2, 4),
}


class Carried:
    """Fills a layer: some sequences side by side, whose states are kept from call to call."""

    def __init__(self, layer: StateLayer, sequences: int) -> None:
        self.layer, self.sequences = layer, sequences
        specs = layer.state_specs()
        self.state = {name: spec.zeros(sequences, torch.float32, torch.device("cpu")) for name, spec in specs.items()}

    def __call__(self, *inputs: Tensor) -> Tensor:
        side_by_side = (x.unflatten(0, (self.sequences, -1)) for x in inputs)
        return self.layer.advance(*side_by_side, state=self.state).flatten(0, 1)


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> StateLayer:
    made = LAYERS[request.param]()
    randomize(made, 3)
    return made


@pytest.mark.parametrize("cuts", [[1] * 150, [64, 64, 22], [1, 70, 79], [149, 1]], ids=lambda cuts: str(cuts[:3]))
def test_a_sequence_may_be_cut_anywhere(layer: StateLayer, cuts: list[int]) -> None:
    x = torch.randn(150, HIDDEN, generator=torch.Generator().manual_seed(0))
    whole = layer(x)
    layer.fill(Carried(layer, 1))
    assert_close(torch.cat([layer(part) for part in x.split(cuts)]), whole, EXACT)


def test_sequences_side_by_side_do_not_see_each_other(layer: StateLayer) -> None:
    x = torch.randn(3, 9, HIDDEN, generator=torch.Generator().manual_seed(0))
    alone = [layer(each) for each in x]
    layer.fill(Carried(layer, 3))
    made = layer(x.flatten(0, 1)).unflatten(0, (3, 9))
    assert_close(made, torch.stack(alone), EXACT)


def test_a_layer_in_bfloat16_keeps_its_scan_in_float32(layer: StateLayer) -> None:
    x = torch.randn(9, HIDDEN, generator=torch.Generator().manual_seed(0))
    exact = layer(x)
    made = layer.bfloat16()(x.bfloat16())
    assert made.dtype is torch.bfloat16
    assert (made.float() - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(spec.dtype in (None, torch.float32) for spec in layer.state_specs().values())
    assert "ssm" not in layer.state_specs() or layer.state_specs()["ssm"].dtype is torch.float32


@pytest.mark.parametrize("n", [1, 2, 64, 65, 150])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_chunked_scan_is_the_recurrence(n: int, groups: int) -> None:
    draws = torch.Generator().manual_seed(n)
    sequences, heads, head_dim, size = 2, 6, 4, 5
    x = torch.randn(sequences, n, heads, head_dim, generator=draws)
    dt = torch.rand(sequences, n, heads, generator=draws) * 2
    a = -torch.rand(heads, generator=draws) * 3
    b, c = (torch.randn(sequences, n, groups, size, generator=draws) for _ in "bc")
    state = torch.randn(sequences, heads, head_dim, size, generator=draws)
    made, after = StateSpaceDual()(x, dt, a, b, c, state)
    wide_b, wide_c = (each.double().repeat_interleave(heads // groups, dim=2) for each in (b, c))
    h, due = state.double(), []
    for t in range(n):
        step = dt[:, t, :, None, None].double()
        h = torch.exp(step * a[:, None, None]) * h + step * x[:, t, :, :, None] * wide_b[:, t, :, None]
        due.append((h * wide_c[:, t, :, None]).sum(-1))
    assert_close(made, torch.stack(due, dim=1), EXACT)
    assert_close(after, h, EXACT)


@pytest.mark.parametrize("bias", [True, False])
def test_the_convolution_is_torchs(bias: bool) -> None:
    ours = CausalConv1d(6, 4, bias)
    randomize(ours, 1)
    x = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0))
    made, after = ours(x, torch.zeros(2, 3, 6))
    padded = F.pad(x.transpose(1, 2), (3, 0))
    theirs = F.conv1d(padded, ours.weight, ours.bias, groups=6).transpose(1, 2)
    assert_close(made, theirs, EXACT)
    assert torch.equal(after, x[:, -3:])


def test_a_layer_that_does_not_say_what_it_keeps_says_so() -> None:
    class Silent(StateLayer):
        kind = "linear"

    with pytest.raises(NotImplementedError, match=r"Silent has no state_specs"):
        Silent().recur(torch.zeros(2, 3))
    assert isinstance(Silent(), nn.Module)
