"""Compiles every Triton kernel to machine code for GPUs that need not be at hand: `python -m tests.kernels.compile_triton 80 90`.

The interpreter takes much that the compiler refuses. The ops are called with tensors on a CPU, each launch is recorded in the
place of being run, and compiled for the architectures named. Prints a line for each, with the shared memory that it takes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from core.kernels.sampling import Draws
from core.kernels.triton import sampling
from core.kernels.triton.backend import TritonKernels
from core.kernels.triton.paged_attention import Scores, attend_pages
from core.scheduler import Scheduled
from core.sequences import StepSequences
from core.step import StepBuilder, StepHolder
from core.transfer import Places
from sdk.layers import (
    Activation,
    ActivationAndMul,
    Attention,
    EncoderAttention,
    Experts,
    PackedEncoderAttention,
    ReplicatedLinear,
    RMSNorm,
    SelectiveScan,
    StateSpaceDual,
)
from sdk.quantization import Int8
from tests.kernels.grid import EXTRAS, request, rope

NAMES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.float64: "fp64",
    torch.bool: "i1",
}
OPTIONS = ("num_warps", "num_stages")
Launch = tuple[JITFunction, tuple[Any, ...], dict[str, Any]]


def recorded(run: Any) -> list[Launch]:
    """The launches that a call makes."""
    found: list[Launch] = []

    def record(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        found.append((self, args, kwargs))

    kept = JITFunction.run
    JITFunction.run = record
    try:
        run()
    finally:
        JITFunction.run = kept
    return found


def compiled(launch: Launch, architecture: int) -> Any:
    """Compile what a launch asks for."""
    function, args, kwargs = launch
    options = {name: kwargs[name] for name in OPTIONS if name in kwargs}
    bound = inspect.signature(function.fn).bind(*args, **{k: v for k, v in kwargs.items() if k not in OPTIONS})
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, (param, value) in enumerate(zip(function.params, bound.arguments.values())):
        if param.is_constexpr or value is None:
            signature[param.name], constants[param.name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[param.name] = "*" + NAMES[value.dtype]
            attributes[index,] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[param.name] = "fp32"
        else:
            signature[param.name] = "i32" if abs(value) < 2**31 else "i64"
    source = ASTSource(function, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def attention(layer: Attention, dtype: torch.dtype) -> Any:
    """A step of one prompt and one decoded token."""
    holder, builder = StepHolder(), StepBuilder(2, 64, 16, torch.device("cpu"))
    holder.current = builder.build(
        [Scheduled(request(0, 33, pages=[1, 2, 3]), 32, 1), Scheduled(request(1, 20, pages=[4, 5]), 0, 20)]
    )
    pages = [torch.zeros(6, 16, layer.num_kv_heads, layer.head_dim, dtype=dtype) for _ in "kv"]
    kernel = TritonKernels().attention(layer, pages[0], pages[1], holder)
    heads = [layer.num_heads, layer.num_kv_heads, layer.num_kv_heads]
    q, k, v = torch.zeros(21, sum(heads), layer.head_dim, dtype=dtype).split(heads, dim=1)
    return lambda: kernel(q, k, v, holder.tensors.positions)


def split_decoding(dtype: torch.dtype, causal: bool) -> Any:
    """One token over a long past; cross-attention is the same without a causal mask."""
    q, pages = torch.zeros(1, 8, 128, dtype=dtype), torch.zeros(256, 32, 2, 128, dtype=dtype)
    table = torch.zeros(1, 256, dtype=torch.int32)
    one = StepSequences.of("pages", np.array([0]), np.array([1]), np.array([8000]), Places(torch.device("cpu")))
    return lambda: attend_pages(q, pages, pages, table, one, Scores(0.1, causal=causal), busy=64)


def other(layer: Any, *args: Any) -> Any:
    """A layer that takes no step."""
    kernel = TritonKernels().other(layer)
    assert kernel is not None
    return lambda: kernel(*args)


def quantized(dtype: torch.dtype, integers: bool) -> Any:
    """A product with a weight in int8."""
    layer, method = ReplicatedLinear(4096, 4096), Int8(quantize_inputs=integers)
    layer.to(dtype).quant_method = method
    method.process_weights_after_loading(layer)
    return other(layer, torch.zeros(20, 4096, dtype=dtype))


def draws() -> None:
    """A row that asks for everything."""
    asked = Draws(np.ones(1), np.array([50]), np.array([0.9]), np.array([0.1]), np.array([0.5]))
    sampling.draw(torch.zeros(1, 128_000), asked)


def ops() -> Iterator[tuple[str, Any]]:
    """Every op, in the shapes that compile to different code."""
    for dtype in (torch.bfloat16, torch.float32):
        kind = str(dtype).removeprefix("torch.")
        for dim, kv_heads in ((64, 8), (80, 2), (128, 1), (256, 4)):
            yield (
                f"attention {kind} {dim}",
                attention(Attention(8, dim, num_kv_heads=kv_heads, rotary=rope(dim)), dtype),
            )
        for name, extra in EXTRAS.items():
            yield f"attention {kind} {name}", attention(Attention(4, 64, num_kv_heads=2, **extra), dtype)
        turned = rope(64, interleaved=True, partial=0.5)
        yield f"attention {kind} interleaved", attention(Attention(4, 64, num_kv_heads=2, rotary=turned), dtype)
        yield f"rotary {kind}", other(turned, torch.arange(3), *torch.zeros(2, 3, 4, 64, dtype=dtype))
        yield f"split decoding {kind}", split_decoding(dtype, True)
        yield f"cross-attention {kind}", split_decoding(dtype, False)
        q = torch.zeros(2, 70, 4, 72, dtype=dtype)
        yield f"encoder attention {kind}", other(EncoderAttention(4, 72), q, q, q)
        yield f"masked {kind}", other(EncoderAttention(4, 72), q, q, q, torch.ones(2, 70, dtype=torch.bool))
        yield f"packed {kind}", other(PackedEncoderAttention(4, 72), *[q.flatten(0, 1)] * 3, [100, 40])
        for offset in (0.0, 1.0):
            norm = RMSNorm(4096, offset=offset)
            norm.weight.data = torch.zeros(4096, dtype=dtype)
            x = torch.zeros(2, 4096, dtype=dtype)
            yield f"norm {kind}", other(norm, x)
            yield f"norm with residual {kind}", other(norm, x, x)
        for name in ("silu", "gelu", "gelu_new", "quick_gelu", "relu", "relu2"):
            x = torch.zeros(2, 11008, dtype=dtype)
            yield f"{name} and mul {kind}", other(ActivationAndMul(name), x, x)
            yield f"{name} {kind}", other(Activation(name), x)
        for integers in (True, False):
            yield f"int8 {kind}", quantized(dtype, integers)
        for tokens in (1, 512):
            layer, chosen = Experts(8, 4096, 512, "silu").to(dtype), torch.zeros(tokens, 2, dtype=torch.int64)
            yield f"experts {kind}", other(layer, torch.zeros(tokens, 4096, dtype=dtype), chosen.float(), chosen)
    x, a, b, state = torch.zeros(2, 5, 8192), torch.zeros(16, 8192), torch.zeros(2, 5, 16), torch.zeros(2, 16, 8192)
    yield "selective scan", other(SelectiveScan(), x, x, a, b, b, state)
    x, b, state = torch.zeros(2, 1, 80, 64), torch.zeros(2, 1, 8, 128), torch.zeros(2, 80, 64, 128)
    yield "dual form", other(StateSpaceDual(), x, x[..., 0], torch.zeros(80), b, b, state)
    yield "draws", draws
    yield (
        "penalties",
        lambda: sampling.penalise(torch.zeros(2, 9), *torch.zeros(2, 3, dtype=torch.int64), *torch.zeros(4, 3)),
    )


def main(architectures: list[int]) -> None:
    """Compile everything; the first that does not compile ends it."""
    for name, run in ops():
        launches = recorded(run)
        assert launches, f"{name} launched nothing"
        for launch in launches:
            for architecture in architectures:
                binary = compiled(launch, architecture)
                print(f"{name}: {launch[0].__name__} sm_{architecture} {binary.metadata.shared} bytes", flush=True)


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]])
