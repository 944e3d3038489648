"""Faults in a plugin's source are caught at level 0, with the line they stand on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sdk.testing import Suite

SourcePlugin = Callable[..., Suite]


@pytest.mark.parametrize(
    ("law_id", "source", "what"),
    [
        ("L0.no-core", "from core.llm import LLM", "model.py:1 imports core.llm.LLM"),
        (
            "L0.no-core",
            "import importlib\nx = importlib.import_module('core.engine')",
            "model.py:2 imports core.engine",
        ),
        ("L0.no-remote-code", "\nf(path, trust_remote_code=True)", "model.py:2 passes trust_remote_code=True"),
        ("L0.no-remote-code", "f(**{'trust_remote_code': asked})", "model.py:1 passes trust_remote_code=asked"),
        ("L0.no-pickle", "import torch as t\nw = t.load('a.bin')", "model.py:2 calls torch.load"),
        ("L0.no-pickle", "from torch import load\nload('a.bin')", "model.py:2 calls torch.load"),
        ("L0.no-pickle", "def f():\n    import pickle", "model.py:2 imports pickle"),
        ("L0.no-pickle", "import numpy as np\nnp.load(f, allow_pickle=True)", "calls numpy.load(allow_pickle"),
        ("L0.no-eval", "def f(s):\n    return eval(s)", "model.py:2 calls eval"),
        ("L0.no-network", "from urllib.request import urlopen", "model.py:1 imports urllib.request"),
        (
            "L0.no-cuda-at-import",
            "import torch\nx = torch.zeros(1, device='cuda')",
            "calls torch.zeros(1, device='cuda') at import",
        ),
        ("L0.no-cuda-at-import", "import torch\nclass A:\n    x = torch.ones(2).cuda()", "model.py:3 calls"),
        (
            "L0.no-former-hook",
            "import sdk\nclass M(sdk.Model):\n    def sample(self, logits): ...",
            "model.py:3 M.sample is never called: sampling is the engine's",
        ),
        (
            "L0.no-former-hook",
            "from sdk import Model\nclass M(Model):\n    def forward(self, ids, positions, kv_caches): ...",
            "M.forward takes kv_caches: attention layers keep their own state",
        ),
    ],
)
def test_a_fault_in_the_source_is_named_with_its_line(
    source_plugin: SourcePlugin, law_id: str, source: str, what: str
) -> None:
    with source_plugin(model=source) as suite:
        result = suite.check(law_id)
    assert result.status == "failed"
    assert what in result.detail
    assert result.cause
    assert result.docs == f"docs/verify.md#{law_id.lower().replace('.', '')}"


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()\nimport torch\nf = torch.compile(g)\nimport re\nre.compile('a')",
        "f(path, trust_remote_code=False)",
        "import torch\ndef f(x):\n    return x.cuda()",
        "class Sampler:\n    def sample(self): ...",
        "from .core import attention\nimport numpy as np\nnp.load('a.npy')",
    ],
)
def test_what_only_looks_like_a_fault_passes(source_plugin: SourcePlugin, source: str) -> None:
    with source_plugin(model=source) as suite:
        searched = [law for law in suite._laws if law.startswith("L0.no-")]
        assert {suite.check(law).status for law in searched} == {"passed"}


def test_a_hidden_torch_import_is_traced_to_the_line_that_asks_for_it(source_plugin: SourcePlugin) -> None:
    with source_plugin(imports="import torch") as suite:
        result = suite.check("L0.torch-free")
    assert result.status == "failed"
    assert "loads torch" in result.detail
    assert "plugin.py:3 import torch" in result.cause


def test_metadata_that_names_another_architecture_than_the_hook_is_caught(source_plugin: SourcePlugin) -> None:
    with source_plugin(claims=("PlantedForCausalLM", "OtherForCausalLM")) as suite:
        result = suite.check("L0.metadata")
    assert result.status == "failed"
    assert "OtherForCausalLM is in engine.v1 but not in engine_architectures()" in result.detail


def test_a_plugin_module_that_cannot_be_imported_is_caught(source_plugin: SourcePlugin) -> None:
    with source_plugin(imports="import nowhere_to_be_found") as suite:
        result = suite.check("L0.metadata")
    assert result.status == "failed"
    assert "No module named 'nowhere_to_be_found'" in result.detail
