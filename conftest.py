"""Triton's kernels run in its interpreter where there is no GPU.

Triton has to be told before anything imports it, and some libraries import it for their own ends: hence here, at the
root, which is read before any test is.
"""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
