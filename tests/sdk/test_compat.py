"""Code in the spellings of older guides and of vLLM runs, and what cannot run says how it is written here.

The ported models are those of docs/porting.md, taken from the page.
"""

from __future__ import annotations

import importlib
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdk
import sdk.compat
import sdk.compat.layers
from core.registry import MODELS
from sdk import registry
from sdk.compat import (
    INPUT_REGISTRY,
    MULTIMODAL_REGISTRY,
    DummyData,
    ImagePixelData,
    ModelRegistry,
    SequenceData,
    SupportsMultiModal,
    SupportsVision,
    VllmConfig,
    token_inputs,
)
from sdk.compat.layers import (
    LogitsProcessor,
    MambaMixer,
    MambaMixer2,
    ParallelLMHead,
    QKVParallelLinear,
    RMSNorm,
    RowParallelLinear,
    VocabParallelEmbedding,
    get_rope,
)
from sdk.compat.model import adapt
from sdk.compat.refused import REFUSED, NotPortableError
from sdk.compat.weights import default_weight_loader
from sdk.errors import InvalidRequestError
from sdk.testing import Suite
from sdk.testing.source_folder import on_path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "porting.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```\w+ file=(\S+)\n(.*?)```", PAGE, re.DOTALL))
LLAMA, LLAVA, PORTED = "LlamaForCausalLM", "LlavaForConditionalGeneration", "PortedLlamaForCausalLM"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's plugin, with its metadata on the path."""
    folder = tmp_path_factory.mktemp("ported")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "src" / "engine_plugin_ported" / "__init__.py").touch()
    with on_path(folder):
        importlib.invalidate_caches()
        yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "engine_plugin_ported"]:
        del sys.modules[name]


@pytest.fixture
def registered() -> Iterator[None]:
    """Forgets what a test registers by hand."""
    yield
    for architecture in dict(registry.registered()):
        registry.unregister(architecture)


def failures(architecture: str, *laws: str) -> list[str]:
    """What is wrong with an architecture; every law that is asked for has something to say."""
    with Suite(architecture) as suite:
        found = [suite.check(law) for law in laws]
    assert {result.status for result in found} <= {"passed", "failed"}, [r.detail for r in found]
    return [result.explain() for result in found if result.status == "failed"]


# ---- a language model in vLLM's spelling ---------------------------------------------------------------------------------


def test_a_model_in_vllms_spelling_computes_what_transformers_computes(site: Path, registered: None) -> None:
    from engine_plugin_ported.model import PortedLlamaForCausalLM

    ModelRegistry.register_model(LLAMA, PortedLlamaForCausalLM)
    registry.register(LLAMA, "engine_plugin_llama.tiny:llama", part="tiny")
    laws = ("L1.meta", "L1.weights", "L1.bfloat16", "L4.logits-reference", "L4.logits-engine", "L4.greedy", "L5.batch")
    assert failures(LLAMA, *laws) == []


def test_the_pages_plugin_is_found_and_passes_the_kit(site: Path) -> None:
    laws = ("L0.metadata", "L0.torch-free", "L0.no-core", "L0.no-former-hook", "L1.parts", "L5.paged", "L5.chunks")
    assert failures(PORTED, *laws) == []


def test_a_class_and_a_lazy_target_are_registered_as_the_page_does(site: Path, registered: None) -> None:
    runpy.run_path(str(site / "notebook.py"))
    eager, lazy = MODELS[LLAMA], MODELS["MyLlamaForCausalLM"]
    assert eager is lazy
    assert issubclass(eager, sdk.Model)
    assert (eager.__module__, eager.__qualname__) == ("engine_plugin_ported.model", PORTED)


def test_a_lazy_target_is_imported_when_it_is_used_and_not_before(registered: None) -> None:
    ModelRegistry.register_model("LaterForCausalLM", "no_such_module_anywhere:Model")
    with pytest.raises(sdk.errors.PluginError, match="no_such_module_anywhere"):
        MODELS["LaterForCausalLM"]
    with pytest.raises(InvalidRequestError, match="'module:Class'"):
        ModelRegistry.register_model("LaterForCausalLM", "no_such_module_anywhere.Model")


def test_importing_compat_loads_no_torch() -> None:
    code = "import sys, sdk.compat, sdk.compat.config, sdk.compat.ported; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# ---- media, by each generation of guides -----------------------------------------------------------------------------------

MEDIA_LAWS = (
    "L1.parts",
    "L1.capabilities",
    "L2.ids-equal-hf",
    "L2.tokens-equal-text",
    "L2.items-independent",
    "L2.placeholder-rows",
    "L3.dummy-tokens",
    "L3.worst-case",
    "L4.media-reference",
    "L4.media-engine",
    "L4.media-greedy",
)


@pytest.mark.parametrize("name", ["processing.LlavaWithProcessor", "mapping.LlavaWithMappers"])
def test_former_processor_hooks_and_oldest_mappers_compute_what_transformers_computes(
    site: Path, registered: None, name: str
) -> None:
    module, _, cls = name.partition(".")
    ported = getattr(importlib.import_module(f"engine_plugin_ported.{module}"), cls)
    ModelRegistry.register_model(LLAVA, ported)
    registry.register(LLAVA, "engine_plugin_llava.tiny:llava", part="tiny")
    assert failures(LLAVA, *MEDIA_LAWS) == []


def test_a_lazy_target_with_media_brings_its_processor(site: Path, registered: None) -> None:
    ModelRegistry.register_model(LLAVA, "engine_plugin_ported.mapping:LlavaWithMappers", modalities=["image"])
    registry.register(LLAVA, "engine_plugin_llava.tiny:llava", part="tiny")
    assert failures(LLAVA, "L1.parts", "L1.capabilities", "L2.ids-equal-hf", "L4.media-engine") == []


def test_the_record_of_the_page_names_parts_that_are_there(site: Path) -> None:
    from engine_plugin_ported.pictures_plugin import engine_architectures

    from sdk.testing.reference import load_target

    (record,) = engine_architectures()
    parts = [load_target(target) for target in (record.processor, record.info, record.dummy_inputs)]
    assert [part.__mro__[1].__name__ for part in parts] == ["MapperProcessor", "MapperInfo", "MapperDummyInputs"]


def processor_of(cls: Any, folder: Path) -> Any:
    from transformers import AutoConfig, AutoTokenizer

    from sdk.multimodal import InputProcessingContext

    adapted: Any = adapt(cls)
    context = InputProcessingContext(
        str(folder), AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    )
    info = adapted.compat_info(context)
    return adapted.compat_processor(info, adapted.compat_dummy_inputs(info))


class Pictures(nn.Module, SupportsVision):
    """As little of a model with media as there can be."""

    def get_multimodal_embeddings(self, **kwargs: Any) -> Any:
        return None


def with_mappers(*decorators: Any) -> Any:
    """A new class under decorators, the last of which is applied first."""
    cls: Any = type("Pictures", (Pictures,), {})
    for decorate in reversed(decorators):
        cls = decorate(cls)
    return cls


def three_tokens(ctx: Any, inputs: Any) -> Any:
    token = ctx.hf_config.image_token_id
    ids = [i for t in inputs["prompt_token_ids"] for i in ([token] * 3 if t == token else [t])]
    return token_inputs(ids, multi_modal_data=inputs["multi_modal_data"])


def test_a_mapper_is_given_each_item_by_itself_in_the_form_it_was_registered_for(folder: Path, pictures: Any) -> None:
    seen: list[Any] = []

    def mapper(ctx: Any, data: Any) -> dict[str, Tensor]:
        seen.append(data)
        return {"sizes": torch.tensor([data.image.size if isinstance(data, ImagePixelData) else data.size])}

    processed = three_tokens
    for register in ("register_image_input_mapper", "register_image_pixel_input_mapper"):
        seen.clear()
        cls = with_mappers(
            getattr(MULTIMODAL_REGISTRY, register)(mapper), INPUT_REGISTRY.register_input_processor(processed)
        )
        made = processor_of(cls, folder).apply("<image> and <image>", {"image": pictures[:2]})
        assert [item.kwargs["sizes"].value.tolist() for item in made.items] == [[64, 48], [32, 33]]
        assert [item.placeholder.num_embeds for item in made.items] == [3, 3]
        assert {isinstance(data, ImagePixelData) for data in seen} == {"pixel" in register}


def test_features_of_a_tower_are_taken_in_the_place_of_pictures(folder: Path) -> None:
    cls = with_mappers(
        MULTIMODAL_REGISTRY.register_image_feature_input_mapper(lambda ctx, data: {"scaled": data.image_features * 2}),
        MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(),
        INPUT_REGISTRY.register_input_processor(three_tokens),
    )
    features = torch.ones(2, 3, 32)
    made = processor_of(cls, folder).apply("<image><image>", {"image": {"image_features": features}})
    assert [item.kwargs["scaled"].value.tolist() for item in made.items] == (features * 2).tolist()


def test_an_input_processor_that_inserts_without_a_placeholder(folder: Path, pictures: Any) -> None:
    def at_the_start(ctx: Any, inputs: Any) -> Any:
        bos, *rest = inputs["prompt_token_ids"]
        return token_inputs([bos, 7, 7, *rest], multi_modal_data=inputs["multi_modal_data"])

    cls = with_mappers(
        MULTIMODAL_REGISTRY.register_input_mapper("image"), INPUT_REGISTRY.register_input_processor(at_the_start)
    )
    processor = processor_of(cls, folder)
    for name in ("image_token_id", "image_token_index"):
        processor.info.get_hf_config().__dict__.pop(name, None)
    if getattr(processor.info.get_hf_config(), "image_token_id", None) is not None:
        processor.info.get_hf_config().image_token_id = None
    ids = processor.info.get_tokenizer()("what?")["input_ids"]
    made = processor.apply("what?", {"image": pictures[:1]})
    assert made.prompt_token_ids == [ids[0], 7, 7, *ids[1:]]
    assert made.items[0].placeholder.offset == 1


def test_dummy_data_come_from_the_factory_of_either_generation(folder: Path, pictures: Any) -> None:
    def older(ctx: Any, seq_len: int) -> Any:
        return SequenceData([1, 2]), ImagePixelData(pictures[0])

    def newer(ctx: Any, seq_len: int, mm_counts: Any) -> Any:
        return DummyData(SequenceData(), {"image": pictures[: mm_counts["image"]]})

    for factory, expected in ((older, [pictures[0]] * 2), (newer, pictures[:2])):
        cls = with_mappers(
            MULTIMODAL_REGISTRY.register_input_mapper("image"),
            INPUT_REGISTRY.register_dummy_data(factory),
            INPUT_REGISTRY.register_input_processor(three_tokens),
            MULTIMODAL_REGISTRY.register_max_image_tokens(5),
        )
        processor = processor_of(cls, folder)
        assert processor.dummy_inputs.get_dummy_mm_data(100, {"image": 2})["image"] == expected
        assert processor.dummy_inputs.get_dummy_text({"image": 2}) == "<image><image>"
        assert processor.info.get_mm_max_tokens_per_item(100, {"image": 1}) == {"image": 5}


# ---- what is refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_cannot_be_adapted_is_refused_with_the_way_to_write_it(name: str) -> None:
    for module in (sdk.compat, sdk.compat.layers):
        with pytest.raises(NotPortableError, match=re.escape(REFUSED[name])):
            getattr(module, name)
    assert f"`{name}`" in PAGE, "the page names it too"


def test_the_page_names_what_is_refused() -> None:
    table = PAGE[PAGE.index("## What is refused") :]
    assert not [name for name in REFUSED if f"`{name}`" not in table]


def test_an_import_of_a_refused_name_is_an_import_error() -> None:
    with pytest.raises(ImportError, match=r"sdk\.compat has no PagedAttention: use sdk\.compat\.layers\.Attention"):
        from sdk.compat import PagedAttention  # type: ignore[attr-defined]  # noqa: F401
    with pytest.raises(AttributeError):
        _ = sdk.compat.anything_else


class Base(nn.Module):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("methods", "what"),
    [
        ({"forward": lambda self, input_ids, positions, kv_caches, attn_metadata: None}, "kv_caches is an argument"),
        ({"forward": lambda self, input_ids, positions, attn_metadata: None}, "attn_metadata is an argument"),
        ({"sample": lambda self, logits, sampling_metadata: None}, "sampling is the engine's"),
        ({"compute_logit": lambda self, hidden_states: None}, "looks like the hook 'compute_logits' misspelt"),
    ],
)
def test_methods_that_would_never_be_called_rightly_are_refused(methods: Any, what: str) -> None:
    with pytest.raises(TypeError, match=what):
        adapt(type("Ported", (Base,), methods))


@pytest.mark.parametrize(
    ("bases", "methods", "what"),
    [
        (
            (nn.Module,),
            {"__init__": lambda self, config, vision_language_config: None},
            "asks for vision_language_config",
        ),
        ((nn.Module, SupportsVision), {}, "encodes its media within forward; write get_multimodal_embeddings"),
        (
            (nn.Module, SupportsMultiModal),
            {
                "embed_multimodal": lambda self, **kwargs: None,
                "forward": lambda self, input_ids, positions, pixel_values: None,
            },
            "takes no inputs_embeds, in which media come",
        ),
        ((object,), {}, "is no torch.nn.Module"),
    ],
)
def test_classes_that_cannot_be_adapted_say_how_they_are_written_here(bases: Any, methods: Any, what: str) -> None:
    with pytest.raises(NotPortableError, match=what):
        adapt(type("Ported", bases, methods))


def test_mappers_without_an_input_processor_say_what_is_missing() -> None:
    with pytest.raises(NotPortableError, match="nothing says how many tokens an item takes"):
        adapt(with_mappers(MULTIMODAL_REGISTRY.register_image_pixel_input_mapper()))
    audio = with_mappers(
        MULTIMODAL_REGISTRY.register_input_mapper("audio"), INPUT_REGISTRY.register_input_processor(three_tokens)
    )
    with pytest.raises(NotPortableError, match="there is a default mapper for pictures alone"):
        adapt(audio)


def test_what_the_engine_decides_is_refused_in_a_layer() -> None:
    with pytest.raises(NotPortableError, match="quant_config=…"):
        RowParallelLinear(4, 4, quant_config=object())
    with pytest.raises(NotPortableError, match="depends on the sequence's length"):
        get_rope(8, rope_scaling={"type": "dynamic", "factor": 2.0})
    with pytest.raises(NotPortableError, match=r"vllm_config\.scheduler_config has nothing to stand for"):
        _ = VllmConfig(sdk.ModelContext(hf_config=None)).scheduler_config


# ---- layers ----------------------------------------------------------------------------------------------------------------


def test_a_forward_that_reserves_parameters_for_media_is_called_without_them() -> None:
    class Reserves(Base, SupportsMultiModal):
        def embed_multimodal(self, **kwargs: Any) -> Any:
            return None

        def forward(self, input_ids: Any, positions: Any, pixel_values: Any, inputs_embeds: Any = None) -> Any:
            return pixel_values, inputs_embeds

    made: Any = adapt(Reserves)(ctx=sdk.ModelContext(hf_config=None))
    assert made(None, None, inputs_embeds=3) == (None, 3)


def test_shards_fill_their_rows_and_heads_lie_flat() -> None:
    layer = QKVParallelLinear(6, 4, 3, 1, bias=False)
    assert layer.weight.shape == (20, 6)
    layer.weight.data.zero_()
    for value, shard, rows in ((1.0, "q", 12), (2.0, "k", 4), (3.0, "v", 4)):
        layer.weight_loader(layer.weight, torch.full((rows, 6), value), shard)
    assert layer.weight[:, 0].tolist() == [1.0] * 12 + [2.0] * 4 + [3.0] * 4
    out, bias = layer(torch.ones(2, 6))
    assert (out.shape, bias) == ((2, 20), None)
    with pytest.raises(sdk.errors.WeightsShapeError):
        layer.weight_loader(layer.weight, torch.ones(3, 6), "k")


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 5e5},
        {"rope_type": "linear", "factor": 2.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_get_rope_rotates_as_the_sdks_layer_does(rope: dict[str, Any]) -> None:
    from transformers import LlamaConfig

    theta = rope.get("rope_theta", 10000.0)
    config = LlamaConfig(
        hidden_size=32,
        num_attention_heads=2,
        max_position_embeddings=256,
        rope_parameters={"rope_theta": theta, **rope},
    )
    positions, q, k = torch.arange(9), torch.randn(9, 32), torch.randn(9, 16)
    ours = get_rope(16, 16, 256, theta, rope_scaling=rope)(positions, q, k)
    theirs = sdk.layers.RotaryEmbedding(config, 16)(positions, q.view(9, 2, 16), k.view(9, 1, 16))
    torch.testing.assert_close(ours[0], theirs[0].flatten(1))
    torch.testing.assert_close(ours[1], theirs[1].flatten(1))


# ---- layers with states ----------------------------------------------------------------------------------------------------


class PortedBlock(nn.Module):
    def __init__(self, mixer: nn.Module, config: Any) -> None:
        super().__init__()
        self.mixer, self.norm = mixer, RMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)

    def forward(self, hidden_states: Tensor) -> Tensor:
        output = torch.empty_like(hidden_states)
        self.mixer(self.norm(hidden_states), output)
        return hidden_states + output


class PortedMamba(nn.Module):
    """As such models are written for vLLM: mixers write to `output`, and `A_log` of the checkpoint is called `A`."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.embeddings = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(PortedBlock(self.mixer(config), config) for _ in range(config.num_hidden_layers))
        self.norm_f = RMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size)
        if config.tie_word_embeddings:
            self.lm_head.tie_weights(self.embeddings)
        self.logits_processor = LogitsProcessor(config.vocab_size)

    def mixer(self, c: Any) -> nn.Module:
        return MambaMixer(
            c.hidden_size, c.state_size, c.conv_kernel, c.intermediate_size, c.time_step_rank,
            use_conv_bias=c.use_conv_bias, use_bias=c.use_bias, use_rms_norm=False, activation=c.hidden_act,
        )  # fmt: skip

    def get_input_embeddings(self, input_ids: Tensor) -> Tensor:
        return self.embeddings(input_ids)

    def forward(self, input_ids: Tensor, positions: Tensor, inputs_embeds: Tensor | None = None) -> Tensor:
        hidden_states = self.get_input_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return self.norm_f(hidden_states)

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        return self.logits_processor(self.lm_head, hidden_states)

    def load_weights(self, weights: Any) -> None:
        parameters: dict[str, Any] = dict(self.named_parameters())
        for name, tensor in weights:
            parameter = parameters[name.removeprefix("backbone.").replace("A_log", "A")]
            getattr(parameter, "weight_loader", default_weight_loader)(parameter, tensor)


class PortedMamba2(PortedMamba):
    def mixer(self, c: Any) -> nn.Module:
        return MambaMixer2(
            c.hidden_size, c.state_size, c.conv_kernel, int(c.expand * c.hidden_size),
            use_conv_bias=c.use_conv_bias, use_bias=c.use_bias, n_groups=c.n_groups, num_heads=c.num_heads,
            head_dim=c.head_dim, rms_norm_eps=c.layer_norm_epsilon, activation=c.hidden_act,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "ported", "tiny"),
    [("MambaForCausalLM", PortedMamba, "mamba"), ("Mamba2ForCausalLM", PortedMamba2, "mamba2")],
)
def test_mixers_in_vllms_spelling_compute_what_transformers_computes(
    architecture: str, ported: type, tiny: str, registered: None
) -> None:
    fields: Any = {
        "tiny": f"engine_plugin_mamba.tiny:{tiny}",
        "capabilities": sdk.Capabilities(attention=("state-space",), prefix_caching=False),
    }
    registry.register(architecture, adapt(ported), part="model", replace=True, **fields)
    assert failures(architecture, "L1.weights", "L1.states", "L4.logits-reference", "L4.greedy", "L5.chunks") == []


def test_what_a_mixer_cannot_be_here_is_refused() -> None:
    with pytest.raises(NotPortableError, match="norms of a mixer have weights"):
        MambaMixer(8, 4, 4, 16, 2, True, False, use_rms_norm=True, rms_norm_has_weight=False)
    with pytest.raises(NotPortableError, match="has a gated norm"):
        MambaMixer2(8, 4, 4, 16, True, False, num_heads=2, head_dim=8, use_rms_norm=False)
    with pytest.raises(NotPortableError, match="keeps its own states"):
        MambaMixer(8, 4, 4, 16, 2, True, False, False)(torch.zeros(1, 8), None, object())
