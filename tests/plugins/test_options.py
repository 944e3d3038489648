"""A plugin's own options: declared by a stranger's plugin, given by everybody who loads a model, refused by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from core import LLM, SamplingParams, explain
from core.cli import run
from core.plugins import Catalog
from core.plugins.options import declared_options, make_options
from core.server.client import EngineClient
from sdk.errors import InvalidConfigError, PluginContractError
from sdk.testing import Suite
from sdk.testing.fake_dist import FakeSite, write_distribution
from sdk.testing.tiny import save_tiny, tiny_tokenizer

OPTIONS: dict[str, Any] = {"dtype": "float32", "block_size": 16, "kv_cache_bytes": 2**20, "disable_progress": True}
GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
PROMPT = {"prompt_token_ids": [1, 20, 30, 40]}
FILES = {
    "stranger/plugin.py": """
        import sdk
        from typing import Literal
        from pydantic import BaseModel, Field

        class Options(BaseModel):
            banned: list[int] = Field([], description="Tokens that are never said.")
            gain: float = Field(1.0, gt=0, description="What logits are multiplied by.")
            mode: Literal["plain", "loud"] = "plain"

        @sdk.hookimpl
        def engine_architectures():
            return [sdk.Architecture(
                name="StrangerForCausalLM", model="stranger.model:StrangerForCausalLM", options="stranger.plugin:Options"
            )]
        """,
    "stranger/model.py": """
        import torch
        from sdk import CausalLM
        from sdk.layers import Decoder, GatedMLP, PreNormBlock, RMSNorm, RotaryEmbedding, SelfAttention

        class StrangerForCausalLM(CausalLM):
            def build_decoder(self, c):
                rotary, norm = RotaryEmbedding(c), RMSNorm(c.hidden_size, c.rms_norm_eps)
                mlp = GatedMLP(c.hidden_size, c.intermediate_size, c.hidden_act)
                blocks = [PreNormBlock(SelfAttention(c, rotary), mlp, c.hidden_size, c.rms_norm_eps)]
                return Decoder(c, rotary, blocks, norm)

            def compute_logits(self, hidden_states):
                logits = super().compute_logits(hidden_states) * self.ctx.options.gain
                logits[:, self.ctx.options.banned] = -torch.inf
                return logits
        """,
}


@pytest.fixture(scope="module", autouse=True)
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stranger's plugin, installed."""
    folder = tmp_path_factory.mktemp("site")
    points = {"engine.v1": {"StrangerForCausalLM": "stranger.plugin"}}
    write_distribution(folder, "engine-plugin-stranger", entry_points=points, files=FILES)
    torch.set_num_threads(1)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "stranger"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that the stranger's plugin runs."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder, tokenizer = tmp_path_factory.mktemp("stranger"), tiny_tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **shape)
    save_tiny(LlamaForCausalLM(config), folder, seed=0, tokenizer=tokenizer, architecture="StrangerForCausalLM")
    return folder


def said(folder: Path, **options: Any) -> list[int]:
    with LLM(str(folder), **OPTIONS, **options) as llm:
        return list(llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids)


@pytest.fixture(scope="module")
def plain(folder: Path) -> list[int]:
    """What the model says with no option given."""
    return said(folder)


def test_the_model_sees_its_options_validated(folder: Path, plain: list[int]) -> None:
    banned = said(folder, plugin_options={"banned": plain, "gain": "2"})
    assert len(banned) == len(plain)
    assert not set(banned) & set(plain)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"gian": 2}, r"the plugin option 'gian' is unknown; did you mean 'gain'\? Stranger"),
        ({"colour": "red"}, "the plugin option 'colour' is unknown."),
        ({"gain": "much"}, "the plugin option 'gain' cannot be 'much': Input should be a valid number"),
        ({"gain": 0}, "the plugin option 'gain' cannot be 0: Input should be greater than 0"),
        ({"mode": "quiet"}, "the plugin option 'mode' cannot be 'quiet': Input should be 'plain' or 'loud'"),
        (
            {"banned": [1, "x"]},
            r"the plugin option 'banned' cannot be \[1, 'x'\] at 1: Input should be a valid integer",
        ),
    ],
)
def test_what_is_no_option_is_refused_by_name(folder: Path, given: dict[str, Any], says: str) -> None:
    possible = r"ForCausalLM takes banned \(list\[int\], default \[\]\), gain \(float, > 0, default 1.0\), mode "
    with pytest.raises(InvalidConfigError, match=rf"^engine-plugin-stranger 0.1.0: {says}.*{possible}") as caught:
        LLM(str(folder), **OPTIONS, plugin_options=given)
    assert caught.value.param == f"plugin_options.{next(iter(given))}"


def test_a_plugin_without_options_refuses_any(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM")
    plugin = Catalog.installed().resolve("FakeForCausalLM")
    assert make_options(plugin, {}) is None
    assert declared_options(plugin) == ()
    with pytest.raises(
        InvalidConfigError, match=r"the plugin option 'gain' is unknown. FakeForCausalLM takes no options"
    ):
        make_options(plugin, {"gain": 1})


def declared(site: FakeSite, source: str) -> Any:
    files = {"options.py": f"from pydantic import BaseModel, model_validator\n{source}"}
    site.install("engine-plugin-fake", "FakeForCausalLM", options="engine_plugin_fake.options:Options", files=files)
    return Catalog.installed().resolve("FakeForCausalLM")


def test_an_option_without_a_default_must_be_given(site: FakeSite) -> None:
    plugin = declared(site, "class Options(BaseModel):\n    key: str\n")
    with pytest.raises(InvalidConfigError, match=r"option 'key' must be given. .* takes key \(str, required\)"):
        make_options(plugin, {})
    assert make_options(plugin, {"key": "x"}).key == "x"  # type: ignore[union-attr]


def test_names_that_the_class_would_swallow_are_refused_all_the_same(site: FakeSite) -> None:
    plugin = declared(site, "class Options(BaseModel, extra='allow'):\n    key: str = ''\n")
    with pytest.raises(InvalidConfigError, match="option 'keys' is unknown; did you mean 'key'"):
        make_options(plugin, {"keys": "x"})


def test_options_that_do_not_go_together_are_refused(site: FakeSite) -> None:
    plugin = declared(
        site,
        "class Options(BaseModel):\n    low: int = 0\n    high: int = 9\n    @model_validator(mode='after')\n"
        "    def ordered(self):\n        if self.low > self.high: raise ValueError('low is above high')\n        return self\n",
    )
    with pytest.raises(InvalidConfigError, match=r"option 'low' does not go with the others: .*low is above high"):
        make_options(plugin, {"low": 10})


@pytest.mark.parametrize("source", ["class Options:\n    pass\n", "Options = dict\n"])
def test_what_is_no_model_of_options_is_the_plugins_fault(site: FakeSite, source: str) -> None:
    with pytest.raises(PluginContractError, match=r"engine-plugin-fake 0.1.0 breaks .* is no pydantic model but"):
        make_options(declared(site, source), {})


def test_a_validator_that_fails_is_the_plugins_fault(site: FakeSite) -> None:
    source = "class Options(BaseModel):\n    def model_post_init(self, _):\n        1 / 0\n"
    with pytest.raises(PluginContractError, match="making its options raised ZeroDivisionError"):
        make_options(declared(site, source), {})


def test_options_that_load_torch_are_found_by_the_kit(site: FakeSite) -> None:
    declared(site, "import torch\nclass Options(BaseModel):\n    pass\n")
    result = Suite("FakeForCausalLM").check("L0.torch-free")
    assert (result.status, result.detail) == ("failed", "importing engine_plugin_fake.plugin loads torch")
    assert "options.py:2" in result.cause


def test_show_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "show", "StrangerForCausalLM"]) == 0
    out = capsys.readouterr().out
    assert "gain    float, > 0                1.0      What logits are multiplied by.\n" in out
    assert "mode    Literal['plain', 'loud']  'plain'" in out
    assert run(["plugins", "show", "StrangerForCausalLM", "--json"]) == 0
    options = json.loads(capsys.readouterr().out)["plugin_options"]
    assert [option["name"] for option in options] == ["banned", "gain", "mode"]
    assert options[1]["default"] == 1.0


def test_run_takes_them(folder: Path, plain: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["run", str(folder), "hello", "--dtype", "float32", "--max-tokens", "4", "--temperature", "0", "--json"]
    answers = []
    for more in ([], ["--plugin-option", f"banned={list(range(300))}", "--plugin-option", "gain=2"]):
        assert run([*asked, *more]) == 0
        answers.append(json.loads(capsys.readouterr().out)["text"])
    assert answers[0] != answers[1]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["gain"], "--plugin-option is KEY=VALUE, not 'gain'"),
        (["gain=1", "gain=2"], "--plugin-option gain is there twice"),
        (["banned=[1,"], "--plugin-option banned begins as JSON, but is none"),
        (["gian=1"], "did you mean 'gain'?"),
    ],
)
def test_wrong_options_on_the_command_line_are_exit_2(
    folder: Path, given: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", str(folder), "hello", *(word for text in given for word in ("--plugin-option", text))]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err


def test_explain_tells_them_or_why_they_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", str(folder), "--plugin-option", "gain=2"]) == 0
    assert "banned=[], gain=2.0, mode='plain'" in capsys.readouterr().out
    refused = explain(str(folder), plugin_options={"gain": -1})
    assert refused.refused_code == "invalid_config"
    assert "greater than 0" in (refused.refused or "")


def test_serve_takes_them_from_flags_and_from_the_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "serve.yaml").write_text("plugin-options: {gain: 3, banned: [7]}\n")
    file = ["--config", str(tmp_path / "serve.yaml")]
    for more, told in ((file, "banned=[7], gain=3.0"), ([*file, "--plugin-option", "gain=4"], "banned=[], gain=4.0")):
        assert run(["serve", str(folder), "--dry-run", *more]) == 0
        assert told in capsys.readouterr().out


@pytest.mark.asyncio
async def test_they_travel_to_the_engines_process(folder: Path, plain: list[int]) -> None:
    options = {**OPTIONS, "plugin_options": {"banned": plain}}
    client = EngineClient(str(folder), **options)
    try:
        await client.ready()
        outputs = [output async for output in client.generate(PROMPT, GREEDY)]
        assert not set(outputs[-1].outputs[0].token_ids) & set(plain)
    finally:
        await client.close()
