"""What holds for every test, wherever it stands.

Triton's kernels run in its interpreter where there is no GPU. Triton has to be told before anything imports it, and some
libraries import it for their own ends: hence here, at the root, which is read before any test is.
"""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# An example that takes long says that the machine is busy, and nothing of what is tested.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test draws the same numbers whatever ran before it in this process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
