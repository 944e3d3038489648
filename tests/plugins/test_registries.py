"""The four registries and registration by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from core.plugins import Catalog
from core.registry import DUMMY_INPUTS, MODELS, PROCESSORS, TRANSCRIPTION
from sdk import registry
from sdk.errors import InvalidRequestError, PluginConflictError, PluginError, PluginImportError, PluginMissingError
from sdk.testing.fake_dist import FakeSite


class Model:
    """A model by hand."""


class Processor:
    """A processor by hand."""


def test_the_registries_are_lazy_views_of_the_installed_plugins(site: FakeSite) -> None:
    package = site.install(
        "engine-plugin-fake", "FakeForCausalLM", "FakeToo", processor="engine_plugin_fake.model:Model"
    )
    assert "FakeForCausalLM" in MODELS
    assert {"FakeForCausalLM", "FakeToo"} <= set(MODELS)
    assert f"{package}.plugin" not in sys.modules
    assert "FakeForCausalLM" in PROCESSORS
    assert "FakeForCausalLM" not in TRANSCRIPTION
    assert f"{package}.model" not in sys.modules
    assert MODELS["FakeForCausalLM"] is PROCESSORS["FakeForCausalLM"] is sys.modules[f"{package}.model"].Model
    assert len(MODELS) == len(list(MODELS))


def test_the_registries_are_read_only() -> None:
    with pytest.raises(TypeError):
        MODELS["FakeForCausalLM"] = Model  # type: ignore[index]
    with pytest.raises(TypeError):
        del MODELS["FakeForCausalLM"]  # type: ignore[attr-defined]


def test_what_is_missing_is_a_key_error_that_says_what_to_do(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM")
    with pytest.raises(KeyError) as caught:
        MODELS["NobodyForCausalLM"]
    assert isinstance(caught.value, PluginMissingError)
    assert str(caught.value).startswith("No installed plugin runs NobodyForCausalLM")
    assert MODELS.get("NobodyForCausalLM") is None
    with pytest.raises(KeyError, match="has no dummy_inputs for FakeForCausalLM"):
        DUMMY_INPUTS["FakeForCausalLM"]


def test_R047_iterating_passes_over_broken_plugins_and_asking_for_one_raises(site: FakeSite) -> None:
    site.install("engine-plugin-broken", "BrokenForCausalLM", imports="1 / 0", processor="a:B")
    site.install("engine-plugin-sound", "SoundForCausalLM", processor="a:B")
    assert "SoundForCausalLM" in set(PROCESSORS)
    assert "BrokenForCausalLM" not in set(PROCESSORS)
    with pytest.raises(PluginImportError):
        PROCESSORS["BrokenForCausalLM"]


def test_a_class_registered_by_hand_serves_in_this_process(site: FakeSite) -> None:
    MODELS.register("HandMadeForCausalLM", Model)
    PROCESSORS.register("HandMadeForCausalLM", Processor)
    assert MODELS["HandMadeForCausalLM"] is Model
    assert PROCESSORS["HandMadeForCausalLM"] is Processor
    assert "HandMadeForCausalLM" in set(MODELS)
    plugin = Catalog.installed().resolve("HandMadeForCausalLM")
    assert (plugin.describe(), plugin.origin) == ("in-process", "in-process")
    assert plugin.architecture.model == f"{__name__}:Model"


def test_a_target_registered_by_hand_is_imported_when_it_is_used(site: FakeSite) -> None:
    (site.folder / "hand_made.py").write_text("class Model: pass\n")
    MODELS.register("HandMadeForCausalLM", "hand_made:Model")
    assert "hand_made" not in sys.modules
    assert MODELS["HandMadeForCausalLM"].__module__ == "hand_made"


def test_a_target_registered_by_hand_that_is_wrong_says_so_and_may_be_repaired(site: FakeSite, tmp_path: Path) -> None:
    MODELS.register("HandMadeForCausalLM", "hand_made_gone:Model")
    with pytest.raises(PluginImportError, match="registered for HandMadeForCausalLM in this process"):
        MODELS["HandMadeForCausalLM"]
    MODELS.register("HandMadeForCausalLM", Model, replace=True)
    assert MODELS["HandMadeForCausalLM"] is Model


def test_a_part_registered_by_hand_lies_over_the_installed_plugin(site: FakeSite) -> None:
    package = site.install("engine-plugin-fake", "FakeForCausalLM", license="MIT")
    PROCESSORS.register("FakeForCausalLM", Processor)
    plugin = Catalog.installed().resolve("FakeForCausalLM")
    assert plugin.distribution == "engine-plugin-fake"
    assert plugin.architecture.license == "MIT"
    assert plugin.load("processor") is Processor
    assert plugin.load("model").__module__ == f"{package}.model"
    assert "Registered by hand in this process: processor." in Catalog.installed().why("FakeForCausalLM")


def test_a_model_registered_by_hand_comes_first_unless_another_is_chosen(site: FakeSite) -> None:
    package = site.install("engine-plugin-fake", "FakeForCausalLM")
    MODELS.register("FakeForCausalLM", Model)
    catalog = Catalog.installed()
    assert catalog.resolve("FakeForCausalLM").load("model") is Model
    assert any("by hand" in line for line in catalog.why("FakeForCausalLM"))
    by_hand = catalog.resolve("FakeForCausalLM", pins={"FakeForCausalLM": "in-process"})
    assert by_hand.load("model") is Model
    installed = catalog.resolve("FakeForCausalLM", pins={"FakeForCausalLM": "engine-plugin-fake"})
    assert installed.load("model").__module__ == f"{package}.model"


def test_R051_registering_something_else_is_an_error_and_the_same_again_is_not(site: FakeSite) -> None:
    registry.register("HandMadeForCausalLM", Model)
    registry.register("HandMadeForCausalLM", type("Model", (), {"__module__": __name__}))  # a notebook cell, run again
    with pytest.raises(PluginConflictError, match="replace=True"):
        registry.register("HandMadeForCausalLM", Processor)
    registry.register("HandMadeForCausalLM", Processor, replace=True)
    assert registry.registered()["HandMadeForCausalLM"].parts == {"model": Processor}


@pytest.mark.parametrize(
    ("architecture", "value", "part"),
    [("", Model, "model"), ("A", None, "model"), ("A", "m", "model"), ("A", Model, "x")],
)
def test_a_registration_that_makes_no_sense_is_refused(architecture: str, value: object, part: str) -> None:
    with pytest.raises(InvalidRequestError):
        registry.register(architecture, value, part=part)


def test_a_field_that_the_record_does_not_know_is_refused_by_name(site: FakeSite) -> None:
    registry.register("HandMadeForCausalLM", Model, rolle="causal-lm")
    with pytest.raises((InvalidRequestError, PluginError), match="rolle"):
        Catalog.installed().resolve("HandMadeForCausalLM")
