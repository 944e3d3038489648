"""The ops in Triton, one file each. Nothing outside imports this package but `core/kernels/choice.py`, behind a guard.

Each file has a kernel and a class or function that launches it; the class fills a layer of `sdk.layers`, whose `reference` is the
specification. Written to Triton 3.6; sums are in float32, and products of float32 are not rounded to less.
"""
