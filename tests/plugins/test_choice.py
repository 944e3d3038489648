"""Who answers an architecture or a model_type: conflicts, pins, fallbacks, and what is said when nobody does."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.plugins import Catalog, Claim, parse_pins
from core.plugins.claims import Scan
from core.plugins.decision import decide
from sdk import registry
from sdk.errors import InvalidConfigError, PluginConflictError, PluginMissingError, PluginVersionError
from sdk.testing.fake_dist import FakeSite


def test_R051_two_distributions_that_claim_one_architecture_conflict_only_when_it_is_asked_for(site: FakeSite) -> None:
    site.install("engine-plugin-a", "SharedForCausalLM", "OnlyAForCausalLM")
    site.install("engine-plugin-b", "SharedForCausalLM")
    catalog = Catalog.of(site.folder)
    assert catalog.resolve("OnlyAForCausalLM").distribution == "engine-plugin-a"
    assert [plugin.state for plugin in catalog.plugins()] == ["conflict", "conflict"]
    with pytest.raises(PluginConflictError) as caught:
        catalog.resolve("SharedForCausalLM")
    for words in ("engine-plugin-a 0.1.0", "engine-plugin-b 0.1.0", "--plugin SharedForCausalLM=engine-plugin-a"):
        assert words in str(caught.value)


@pytest.mark.parametrize("spelled", ["engine-plugin-b", "Engine_Plugin.B"])
def test_R051_a_pin_settles_a_conflict_and_only_the_chosen_one_is_imported(site: FakeSite, spelled: str) -> None:
    other = site.install("engine-plugin-a", "SharedForCausalLM")
    site.install("engine-plugin-b", "SharedForCausalLM")
    plugin = Catalog.of(site.folder).resolve("SharedForCausalLM", pins={"SharedForCausalLM": spelled})
    assert plugin.distribution == "engine-plugin-b"
    assert f"{other}.plugin" not in sys.modules


def test_R051_a_conflict_is_over_when_one_side_cannot_be_used(site: FakeSite) -> None:
    site.install("engine-plugin-a", "SharedForCausalLM")
    site.install("engine-plugin-b", "SharedForCausalLM", group="engine.v2")
    assert Catalog.of(site.folder).resolve("SharedForCausalLM").distribution == "engine-plugin-a"
    allowed = frozenset({"engine-plugin-b"})
    with pytest.raises(PluginVersionError):
        Catalog.of(site.folder, allowed=allowed).resolve("SharedForCausalLM")


def test_R051_a_broken_plugin_that_was_chosen_is_not_replaced_silently(site: FakeSite) -> None:
    site.install("engine-plugin-a", "SharedForCausalLM", imports="1 / 0")
    site.install("engine-plugin-b", "SharedForCausalLM")
    catalog, pins = Catalog.of(site.folder), {"SharedForCausalLM": "engine-plugin-a"}
    for _ in range(2):
        with pytest.raises(Exception, match="engine-plugin-a"):
            catalog.resolve("SharedForCausalLM", pins=pins)
    with pytest.raises(PluginConflictError):
        catalog.resolve("SharedForCausalLM")


@pytest.mark.parametrize(
    ("distribution", "error"),
    [("engine-plugin-absent", PluginMissingError), ("engine-plugin-new", PluginVersionError)],
)
def test_a_pin_that_cannot_be_followed_says_why(site: FakeSite, distribution: str, error: type[Exception]) -> None:
    site.install("engine-plugin-a", "SharedForCausalLM")
    site.install("engine-plugin-new", "SharedForCausalLM", group="engine.v3")
    with pytest.raises(error, match=distribution):
        Catalog.of(site.folder).resolve("SharedForCausalLM", pins={"SharedForCausalLM": distribution})


def test_pins_on_the_command_line() -> None:
    assert parse_pins(["A=dist-a", " B = dist-b "]) == {"A": "dist-a", "B": "dist-b"}
    assert parse_pins(["A=dist-a", "A=dist_a"]) == {"A": "dist-a"}
    for wrong in (["A"], ["A="], ["=dist"], ["A=x", "A=y"]):
        with pytest.raises(InvalidConfigError):
            parse_pins(wrong)


def test_a_fallback_is_asked_only_when_nobody_claims_the_architecture(site: FakeSite) -> None:
    site.install("engine-plugin-own", "OwnForCausalLM")
    site.install("engine-plugin-any", "*")
    catalog = Catalog.of(site.folder)
    assert [plugin.state for plugin in catalog.plugins()] == ["ready", "ready"]
    assert catalog.resolve("OwnForCausalLM").distribution == "engine-plugin-own"
    answer = catalog.resolve("NeverHeardOfForCausalLM")
    assert answer.distribution == "engine-plugin-any"
    assert answer.architecture.name == "NeverHeardOfForCausalLM"
    pinned = catalog.resolve("OwnForCausalLM", pins={"OwnForCausalLM": "engine-plugin-any"})
    assert pinned.distribution == "engine-plugin-any"


def test_two_fallbacks_do_not_conflict(site: FakeSite) -> None:
    site.install("engine-plugin-z", "*")
    site.install("engine-plugin-y", "*")
    catalog = Catalog.of(site.folder)
    assert [plugin.state for plugin in catalog.plugins()] == ["ready", "ready"]
    assert catalog.resolve("AnyForCausalLM").distribution == "engine-plugin-y"
    assert catalog.resolve("AnyForCausalLM", pins={"AnyForCausalLM": "engine-plugin-z"}).version == "0.1.0"


def test_a_fallback_does_not_hide_that_a_plugin_is_too_new(site: FakeSite) -> None:
    site.install("engine-plugin-any", "*")
    site.install("engine-plugin-new", "NewForCausalLM", group="engine.v2")
    with pytest.raises(PluginVersionError, match="engine-plugin-new"):
        Catalog.of(site.folder).resolve("NewForCausalLM")


def test_a_missing_plugin_of_ours_is_an_answer(site: FakeSite) -> None:
    with pytest.raises(PluginMissingError) as caught:
        Catalog.of(site.folder).resolve("FuyuForCausalLM")
    assert str(caught.value) == "No installed plugin runs FuyuForCausalLM; try: pip install engine-plugin-fuyu"


def test_a_missing_plugin_that_nobody_knows_tells_near_names_and_how_to_make_one(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM")
    with pytest.raises(PluginMissingError) as caught:
        Catalog.of(site.folder).resolve("FakedForCausalLM")
    assert "FakeForCausalLM" in str(caught.value)
    assert "engine plugins new" in str(caught.value)


def test_why_tells_the_decision_without_importing(site: FakeSite) -> None:
    package = site.install("engine-plugin-a", "SharedForCausalLM")
    site.install("engine-plugin-b", "SharedForCausalLM", group="engine.v2")
    catalog = Catalog.of(site.folder)
    text = "\n".join(catalog.why("SharedForCausalLM"))
    assert "engine-plugin-b 0.1.0" in text
    assert "newer" in text
    assert text.endswith("SharedForCausalLM is run by engine-plugin-a 0.1.0.")
    assert "pip install engine-plugin-fuyu" in catalog.why("FuyuForCausalLM")[-1]
    assert "no installed distribution 'x'" in catalog.why("SharedForCausalLM", {"SharedForCausalLM": "x"})[-1]
    assert package not in sys.modules


def test_a_model_type_is_answered_by_role(site: FakeSite) -> None:
    site.install("engine-plugin-text", "DuoForCausalLM", model_types=("duo",))
    site.install("engine-plugin-eyes", "DuoVisionModel", model_types=("duo",), role="vision-encoder", kind="component")
    catalog = Catalog.of(site.folder)
    assert catalog.resolve_model_type("duo", "causal-lm").architecture.name == "DuoForCausalLM"
    assert catalog.resolve_model_type("duo", "vision-encoder").distribution == "engine-plugin-eyes"
    with pytest.raises(PluginMissingError, match=r"engine-plugin-eyes 0\.1\.0 as vision-encoder"):
        catalog.resolve_model_type("duo", "audio-encoder")
    with pytest.raises(PluginMissingError, match=r"model_type 'duos'.*duo\."):
        catalog.resolve_model_type("duos", "causal-lm")


def test_R051_two_that_answer_a_model_type_in_one_role_conflict_until_the_user_chooses(site: FakeSite) -> None:
    site.install("engine-plugin-a", "AForCausalLM", model_types=("shared",))
    site.install("engine-plugin-b", "BForCausalLM", model_types=("shared",))
    site.install("engine-plugin-c", "AForCausalLM", model_types=("c",))
    catalog = Catalog.of(site.folder)
    with pytest.raises(PluginConflictError, match="model_type 'shared'"):
        catalog.resolve_model_type("shared", "causal-lm")
    by_type = catalog.resolve_model_type("shared", "causal-lm", pins={"shared": "engine-plugin-b"})
    assert by_type.architecture.name == "BForCausalLM"
    by_name = catalog.resolve_model_type(
        "shared", "causal-lm", pins={"BForCausalLM": "x", "AForCausalLM": "engine-plugin-a"}
    )
    assert by_name.distribution == "engine-plugin-a"


def test_R051_a_broken_claimant_of_a_model_type_is_not_passed_over(site: FakeSite) -> None:
    site.install("engine-plugin-a", "AForCausalLM", model_types=("shared",), imports="1 / 0")
    site.install("engine-plugin-b", "BForCausalLM", model_types=("shared",))
    with pytest.raises(PluginConflictError):
        Catalog.of(site.folder).resolve_model_type("shared", "causal-lm")


def test_a_model_type_registered_in_process_is_found(site: FakeSite) -> None:
    class Tower:
        pass

    registry.register("HandMadeTower", Tower, role="vision-encoder", model_types=("hand_made",))
    plugin = Catalog.of(site.folder).resolve_model_type("hand_made", "vision-encoder")
    assert plugin.load("model") is Tower


def claim(distribution: str, name: str, state: str) -> Claim:
    return Claim(name, "architecture", "m", distribution, "1", "v1", "wheel", "/", state=state)  # type: ignore[arg-type]


CLAIMS = st.builds(
    claim,
    st.sampled_from(["dist-a", "dist-b", "dist-c"]),
    st.sampled_from(["Arch", "*", "Other"]),
    st.sampled_from(["ready", "disabled", "incompatible", "quarantined"]),
)


@given(
    st.lists(CLAIMS, max_size=6, unique_by=lambda item: (item.distribution, item.name)),
    st.one_of(st.none(), st.sampled_from(["dist-a", "dist-b", "Dist_C", "dist-d"])),
)
def test_R051_the_order_of_installation_never_decides(claims: list[Claim], pin: str | None) -> None:
    pins = {"Arch": pin} if pin else None
    answers = {decide("Arch", order, pins=pins).answer for order in itertools.permutations(claims)}
    assert len(answers) == 1


@given(st.lists(CLAIMS, max_size=6, unique_by=lambda item: (item.distribution, item.name)))
def test_a_decision_is_an_answer_or_an_error_and_only_usable_plugins_answer(claims: list[Claim]) -> None:
    decision = decide("Arch", claims)
    assert (decision.answer is None) == (decision.error is not None)
    own = [item for item in claims if item.name == "Arch" and item.state != "disabled"]
    if decision.chosen is not None:
        assert decision.chosen.state == "ready"
        assert decision.chosen.name == ("Arch" if own else "*")
    assert Catalog(Scan(tuple(claims))).why("Arch")
