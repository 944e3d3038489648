"""How the demo models are trained on one or two cores: quick attention, AdamW by the clock, a line of figures now and then."""

from __future__ import annotations

import ctypes
import math
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface


@torch.library.custom_op("shapes::attend", mutates_args=())
def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention by plain products, `mask` is 1 or 0: on a CPU, four times faster backwards than torch's own."""
    weights = (q @ k.transpose(-1, -2)).exp_().mul_(mask)
    weights.mul_(weights.sum(-1, keepdim=True).reciprocal_())
    return weights @ v, weights


@attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(*q.shape[:3], k.shape[2])


@torch.library.custom_op("shapes::attend_back", mutates_args=())
def attend_back(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v."""
    grad = grad.contiguous()
    change = grad @ v.transpose(-1, -2)
    change.sub_((grad * out).sum(-1, keepdim=True)).mul_(weights)
    return change @ k, change.transpose(-1, -2) @ q, weights.transpose(-1, -2) @ grad


@attend_back.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:3], *output)


def _back(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, Tensor, Tensor, None]:
    return *attend_back(grad, *ctx.saved_tensors), None


attend.register_autograd(_back, setup_context=_keep)


def quick_attention(
    module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """`attend` as transformers calls attention."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    seen = torch.ones(1, 1, 1, 1, dtype=q.dtype) if mask is None else mask.to(q.dtype)
    q, k = (q * scaling).to(v.dtype), k.to(v.dtype)
    out, _weights = attend(q.contiguous(), k.contiguous(), v.contiguous(), seen.to(v.dtype))
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("quick", quick_attention)


def branching(parts: Tensor, alone: Tensor) -> Tensor:
    """Who sees whom in rows of one beginning (part 0) and texts that do not see each other, `(batch, 1, tokens, tokens)`.

    Args:
        parts: `(batch, tokens)`, the number of the text a token belongs to.
        alone: `(batch, tokens)`, 1 where a token does not see the beginning either.
    """
    mask = (parts[:, :, None] == parts[:, None]) | ((parts[:, None] == 0) & (alone == 0)[:, :, None])
    return (mask & torch.ones(mask.shape[1:], dtype=torch.bool).tril()).unsqueeze(1)


def filters_of_waves(width: int, patch: int) -> Tensor:
    """A start for filters over patches, `(width, 3, patch, patch)`: cosines of rising frequency in three colours, mixed."""
    k = torch.arange(patch)
    basis = F.normalize(torch.cos(math.pi * (k[None] + 0.5) * k[:, None] / patch), dim=1)
    colours = F.normalize(torch.tensor([[1.0, 1, 1], [1, -1, 0], [-0.5, -0.5, 1]]), dim=1)
    orders = sorted(((u, v) for u in range(patch) for v in range(patch)), key=lambda t: t[0] ** 2 + t[1] ** 2)
    rows = [
        c[:, None, None] * basis[u][:, None] * basis[v] * (0.3 if u + v else 0.06)
        for u, v in orders[: width // 3]
        for c in colours
    ]
    rows += [torch.zeros_like(rows[0])] * (width - len(rows))
    filters = (torch.linalg.qr(torch.randn(width, width))[0] @ torch.stack(rows).flatten(1)).unflatten(
        1, (3, patch, patch)
    )
    return filters + 0.002 * torch.randn_like(filters)


def give_back_memory() -> None:
    """Rows of answers come in every length, and glibc keeps the holes that they leave: some 15 MB a step."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def exact(labels: Tensor, right: Tensor, end: int) -> tuple[int, int]:
    """How many answers are right in every token, of how many: what greedy decoding would get.

    Args:
        labels: `(batch, tokens)`, -100 but for answers, each of which ends with the token `end`.
        right: Which of the answers' tokens were right, end to end.
    """
    targets = labels[:, 1:]
    ends = (targets[targets != -100] == end).long()
    answer = ends.cumsum(0) - ends
    worst = torch.ones(int(ends.sum()), dtype=torch.long).scatter_reduce(0, answer, right.long(), "amin")
    return int(worst.sum()), len(worst)


class Descent:
    """AdamW over groups of parameters, each with its own peak rate, warmed up by steps and lowered by the clock.

    The clock is the processor's, so that a training which others hold up takes longer, but is none the worse.
    """

    def __init__(self, groups: list[tuple[list[nn.Parameter], float]], minutes: float) -> None:
        self.seconds, self.begin, self.step = 60 * minutes, time.process_time(), 0
        self.peaks = [rate for _, rate in groups]
        self.optimizer: Any = torch.optim.AdamW(
            [{"params": p} for p, _ in groups], betas=(0.9, 0.98), weight_decay=0.03, fused=True
        )

    @property
    def done(self) -> float:
        return (time.process_time() - self.begin) / torch.get_num_threads() / self.seconds

    def down(self, loss: Tensor) -> None:
        """One step."""
        self.step += 1
        if self.step % 20 == 0:
            give_back_memory()
        shape = min(1, self.step / 60) * (0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * min(1, self.done))))
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * shape
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        for group in self.optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.optimizer.step()


class Average:
    """A running average of a model's weights: better than the last ones."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.weights = model, {k: v.clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Take in the weights after this step."""
        keep = min(0.995, step / (step + 10))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - keep)


class Report:
    """A line every 20 seconds."""

    def __init__(self, lesson: str, descent: Descent) -> None:
        self.lesson, self.descent, self.last = lesson, descent, time.monotonic()
        self.good = self.total = 0

    def count(self, good: int, total: int, **more: Tensor) -> None:
        self.good, self.total = self.good + good, self.total + total
        if time.monotonic() - self.last > 20:
            figures = ", ".join(f"{k} {v.item():.3f}" for k, v in more.items())
            done, right = 100 * self.descent.done, 100 * self.good / max(1, self.total)
            print(f"{self.lesson} {done:5.1f}% step {self.descent.step} right {right:.1f}%, {figures}", flush=True)
            self.last, self.good, self.total = time.monotonic(), 0, 0
