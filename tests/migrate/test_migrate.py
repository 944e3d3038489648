"""`engine plugins migrate`: model files in the styles of vLLM, today's and a former guide's, become plugins that are right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.cli import run
from core.migrate import Migration, migrate
from sdk.compat.refused import REFUSED
from sdk.errors import InvalidConfigError
from sdk.testing import Suite
from sdk.testing.fake_dist import write_distribution

HERE = Path(__file__).parent
TINY = """
from sdk.testing.tiny import save_tiny, tiny_tokenizer


def make(seed, folder):
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )
    save_tiny(LlamaForCausalLM(config), folder, seed=seed, tokenizer=tokenizer, architecture="ARCHITECTURE")
"""


def migrated(name: str) -> Migration:
    return migrate((HERE / f"{name}.py.txt").read_text(encoding="utf-8"))


@pytest.fixture(params=["theirs_today", "theirs_once"])
def suite(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Suite]:
    """The laws about a plugin made of what was migrated, and of nothing else but a tiny checkpoint."""
    made, package = migrated(request.param), f"migrated_{request.param}"
    (architecture,) = made.architectures
    plugin = (
        made.plugin_module(package)
        .replace('",\n', f'", tiny="{package}.tiny:make",\n')
        .replace('ForCausalLM"),', f'ForCausalLM", tiny="{package}.tiny:make"),')
    )
    files = {
        f"{package}/model.py": made.code,
        f"{package}/plugin.py": plugin,
        f"{package}/tiny.py": TINY.replace("ARCHITECTURE", architecture),
    }
    points = {"engine.v1": {architecture: f"{package}.plugin"}}
    write_distribution(tmp_path, "engine-plugin-migrated", entry_points=points, files=files)
    monkeypatch.syspath_prepend(str(tmp_path))
    with Suite(architecture) as suite:
        yield suite


@pytest.mark.slow
def test_what_is_migrated_computes_what_transformers_computes(suite: Suite) -> None:
    for law in ("L1.weights", "L4.logits-reference", "L4.greedy", "L5.paged", "L5.chunks", "L5.batch", "L5.preemption"):
        result = suite.check(law)
        assert result.status == "passed", result.explain()


def test_todays_style_leaves_nothing_to_do() -> None:
    made = migrated("theirs_today")
    assert made.notes == ()
    for gone in (
        "vllm.",
        "get_pp_group",
        "make_layers",
        "PPMissing",
        "support_torch_compile",
        "embed_input_ids",
        "name = name\n",
    ):
        assert gone not in made.code.replace("vllm_config.", ""), gone
    assert 'nn.ModuleList([TheirDecoderLayer(vllm_config=vllm_config, prefix=f"{prefix}.layers" + f".{i}")' in made.code
    assert "# halves, gated" in made.code


def test_a_former_style_says_what_is_left() -> None:
    made = migrated("theirs_once")
    assert made.architectures == {"OnceLlamaForCausalLM": "OnceForCausalLM"}
    assert "sdk.compat.ported:mine.model.OnceForCausalLM" in made.plugin_module("mine")
    assert 'OnceLlamaForCausalLM = "mine.plugin"' in made.entry_points("mine")
    said = {note.line: note.text for note in made.notes}
    assert "vllm.envs was imported whole" in said[5]
    assert "current_platform (of vllm.platforms) has no counterpart" in said[20]
    for gone in ("kv_cache", "attn_metadata", "self.sampler", "Sampl", "ModelRegistry", "register_model", "def sample"):
        assert gone not in made.code.replace("cache_config", ""), gone


LAST = "get_pp_group().is_last_rank"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = get_tensor_model_parallel_world_size()\n", "x = 1\n"),
        ("if get_pp_group().is_last_rank:\n    a()\nelse:\n    b()\n", "a()\n"),
        ("if not get_pp_group().is_first_rank:\n    a()\nb()\n", "b()\n"),
        ("x = a() if get_pp_group().is_first_rank else b()\n", "x = a()\n"),
        ("if y and get_pp_group().is_last_rank:\n    a()\n", "if y:\n    a()\n"),
        ("import os, vllm.envs\n", "import os\n"),
        ("import os  # kept\n", "import os  # kept\n"),
        ("from mine import Attention\n", "from mine import Attention\n"),
        ("from vllm.a import Attention as A\nA()\n", "\nfrom sdk.compat.layers import Attention as A\nA()\n"),
        ("y = model.embed_multimodal(**x)\n", "y = model.get_multimodal_embeddings(**x)\n"),
        ("class A(nn.Module, SupportsPP):\n    pass\n", "class A(nn.Module):\n    pass\n"),
        (f"if x:\n    a()\nelif {LAST}:\n    b()\nelse:\n    c()\n", "if x:\n    a()\nelse:\n    b()\n"),
        (f"if x:\n    a()\nelif not {LAST}:\n    b()\n", "if x:\n    a()\n"),
        (f"if x:\n    a()\nelif not {LAST}:\n    b()\nelse:\n    c()\n", "if x:\n    a()\nelse:\n    c()\n"),
        (f"if x:\n    a()\nelif not {LAST}:\n    b()\nelif y:\n    c()\n", "if x:\n    a()\nelif y:\n    c()\n"),
        (f"if not {LAST}:\n    a()\nelif x:\n    b()\n", "if x:\n    b()\n"),
        (f"# why\nif {LAST}: a(); b()\n", "# why\na(); b()\n"),
        ("def f(\n    x,\n    *,\n    kv_cache=None,\n):\n    pass\n", "def f(\n    x,\n):\n    pass\n"),
        ("f(\n    x,\n    kv_caches[i],\n)\n", "f(\n    x,\n)\n"),
        ("x = AttentionType.ENCODER_ONLY\n", 'x = "encoder_only"\n'),
        ("x: AttentionType\n", "\nfrom typing import Any\nx: Any\n"),
        (
            'a, z, y = make_layers(2, lambda prefix: B(prefix=f"{prefix}.b"), prefix=f"{prefix}.layers")\n',
            "y = nn.ModuleList([B(prefix=f\"{f'{prefix}.layers' + f'.{i}'}.b\") for i in range(2)])\n",
        ),
        ('x = f"{AttentionType.ENCODER}"\n', "x = f\"{'encoder'}\"\n"),
    ],
)
def test_one_rewriting(before: str, after: str) -> None:
    assert migrate(before).code == after


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        (
            "def f(x, attn_metadata):\n    return attn_metadata.tokens\n",
            2,
            "attn_metadata is still used, and nothing gives",
        ),
        ("def f(kv_caches):\n    return len(kv_caches)\n", 2, "kv_caches is still used"),
        ("import torch\ny = torch.stack(kv_caches)\n", 2, "kv_caches is still used"),
        ("x = context.attn_metadata\n", 1, "attn_metadata is still used"),
        (
            "class A:\n    @classmethod\n    def get_mamba_state_shape_from_config(cls, config):\n        pass\n",
            3,
            "never called here: layers with states say themselves",
        ),
        ("class A:\n    def pad_input_ids(self, ids):\n        pass\n", 2, "never called here: write a processor"),
        ("class A:\n    def sample(self, logits, sampling_metadata):\n        pass\n", 2, "sample was taken out"),
        ("class AForCausalLM:\n    def sample(self, logits):\n        pass\n", 2, "sample was taken out"),
        (
            "from vllm import ModelRegistry\nx = ModelRegistry.get_supported_archs()\n",
            2,
            "ModelRegistry of sdk.compat has",
        ),
        ("from vllm import ModelRegistry as R\nx = R.get_supported_archs()\n", 2, "has no get_supported_archs"),
        (
            "def f(vllm_config):\n    return vllm_config.compilation_config\n",
            2,
            "vllm_config.compilation_config has nothing",
        ),
        ("x = self.vllm_config.model_config.max_model_len\n", 1, "model_config.max_model_len has nothing"),
        (
            "from .utils import PPMissingLayer\nx = isinstance(y, PPMissingLayer)\n",
            2,
            "PPMissingLayer is still used: leave",
        ),
        ("from vllm.x import Sampler as S\nx = S\n", 2, "S is still used: sampling is the engine's"),
        ("self.sampler = Sampler()\ny = self.sampler(x)\n", 2, "self.sampler is still used, and no longer set"),
        (
            "self.start, self.end, self.layers = make_layers(\n    n, lambda prefix: B(attn_metadata.n))\n",
            1,
            "attn_metadata is still used",
        ),
        (
            "self.start, self.end, self.layers = make_layers(3, lambda prefix: B())\nrange(self.start, self.end)\n",
            2,
            "self.start is still used, and no longer set: every layer is here",
        ),
        ("from vllm.utils import direct_register_custom_op\n", 1, REFUSED["direct_register_custom_op"]),
    ],
)
def test_what_is_left_is_said_by_line(source: str, line: int, said: str) -> None:
    notes = migrate(f"{source}class M(nn.Module):\n    pass\n").notes
    assert any(note.line == line and said in note.text for note in notes), notes


def test_another_method_that_is_called_sample_stays() -> None:
    source = "class Gaussian:\n    def sample(self, generator=None):\n        return self.mean\n"
    assert migrate(source).code == source


def test_a_model_that_derives_from_another_is_one() -> None:
    made = migrate("from .llama import LlamaForCausalLM\n\n\nclass OrionForCausalLM(LlamaForCausalLM):\n    pass\n")
    assert made.architectures == {"OrionForCausalLM": "OrionForCausalLM"}
    assert [note.text.partition(":")[0] for note in made.notes] == ["LlamaForCausalLM (of .llama) has no counterpart"]


def test_what_is_migrated_twice_stays_as_it_is() -> None:
    once = migrated("theirs_today").code
    assert migrate(once).code == once


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def (:\n", "no Python: line 1"),
        ("x = 1\0\n", "no Python"),
        (f"x = 1{'+1' * 400}\n", "nested too deeply"),
        (f"x = 1{'+1' * 3000}\n", "nested too deeply"),
        (f"x = {'(' * 3000}1{')' * 3000}\n", "too many nested parentheses"),
        (f"x = {'-' * 3000}1\n", "nested too deeply"),
    ],
    ids=["no sentence", "null", "long", "longer", "brackets", "signs"],
)
def test_what_cannot_be_read_is_an_error(source: str, said: str) -> None:
    with pytest.raises(InvalidConfigError, match=said):
        migrate(source)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.py"
    assert run(["plugins", "migrate", str(HERE / "theirs_once.py.txt"), "-o", str(out), "--package", "mine"]) == 0
    said = capsys.readouterr().err
    assert "theirs_once.py.txt:20: current_platform" in said
    assert '[project.entry-points."engine.v1"]' in said
    assert "from sdk.compat.layers import" in out.read_text()
    assert run(["plugins", "migrate", str(tmp_path / "nowhere.py")]) == 2
    for package in ("a b-c", "", "a..b", "class"):
        assert run(["plugins", "migrate", str(out), "--package", package]) == 2
        assert "is no name of a Python package" in capsys.readouterr().err
