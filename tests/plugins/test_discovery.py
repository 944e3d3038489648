"""What metadata proves: claims, duplicates, the allow-list, versions. No plugin code runs here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.plugins import Catalog
from core.plugins.requirements import is_met, normalised
from sdk.errors import PluginContractError, PluginMissingError, PluginVersionError
from sdk.testing.fake_dist import FakeSite, plugin_source, write_distribution


def states(catalog: Catalog) -> dict[str, str]:
    return {plugin.distribution: plugin.state for plugin in catalog.plugins()}


def test_a_listing_tells_what_is_installed_and_imports_nothing(site: FakeSite) -> None:
    package = site.install("engine-plugin-fake", "FakeForCausalLM", "OtherForCausalLM", model_types=("fake",))
    (plugin,) = Catalog.of(site.folder).plugins()
    assert plugin.as_json() == {
        "name": "fake",
        "distribution": "engine-plugin-fake",
        "version": "0.1.0",
        "origin": "wheel",
        "architectures": ["FakeForCausalLM", "OtherForCausalLM"],
        "api": "v1",
        "state": "ready",
        "reason": "",
    }
    assert package not in sys.modules


def test_distributions_that_are_no_plugins_and_broken_metadata_are_passed_over(site: FakeSite) -> None:
    write_distribution(site.folder, "some-tool", entry_points={"console_scripts": {"some": "some:main"}})
    broken = write_distribution(site.folder, "broken", entry_points={"engine.v1": {"BrokenForCausalLM": "broken"}})
    (broken / "entry_points.txt").write_bytes(b"[engine.v1]\n\xff\xfe = x\n")
    site.install("engine-plugin-fake", "FakeForCausalLM")
    assert states(Catalog.of(site.folder)) == {"engine-plugin-fake": "ready"}


@pytest.mark.parametrize(("editable", "wheel", "origin"), [(False, True, "wheel"), (True, True, "editable")])
def test_the_origin_says_how_it_was_installed(site: FakeSite, editable: bool, wheel: bool, origin: str) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM", editable=editable, wheel=wheel)
    assert Catalog.of(site.folder).plugins()[0].origin == origin


def test_the_origin_of_a_folder_on_the_path_is_the_folder(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM", wheel=False)
    assert Path(Catalog.of(site.folder).plugins()[0].origin) == site.folder


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("engine.v2", ["API v2", "newer", "pip install --upgrade engine-plugin-sdk"]),
        ("engine.v0", ["API v0", "older", "pip install --upgrade engine-plugin-fake"]),
        ("engine.vNext", ["no API version", "engine.vNext"]),
    ],
)
def test_R050_a_plugin_of_another_major_is_named_as_such(site: FakeSite, group: str, words: list[str]) -> None:
    package = site.install("engine-plugin-fake", "FakeForCausalLM", group=group)
    catalog = Catalog.of(site.folder)
    assert states(catalog) == {"engine-plugin-fake": "incompatible"}
    with pytest.raises(PluginVersionError) as caught:
        catalog.resolve("FakeForCausalLM")
    assert all(word in str(caught.value) for word in ["engine-plugin-fake 0.1.0", *words]), str(caught.value)
    assert package not in sys.modules


@pytest.mark.parametrize(
    "requirement", ["engine-plugin-sdk>=9", "Engine_Plugin.SDK<0.1", "engine-plugin-sdk>=nonsense"]
)
def test_R050_a_minor_that_does_not_fit_names_the_range_and_a_pip_line(site: FakeSite, requirement: str) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM", requires=(requirement,))
    with pytest.raises(PluginVersionError) as caught:
        Catalog.of(site.folder).resolve("FakeForCausalLM")
    assert requirement in str(caught.value)
    assert f"pip install '{requirement}'" in str(caught.value)


def test_R050_what_an_architecture_requires_is_checked_before_its_model_is_loaded(site: FakeSite) -> None:
    package = site.install("engine-plugin-needy", "NeedyForCausalLM")
    source = plugin_source("NeedyForCausalLM", requires=("pluggy>=1", "pluggy>=999"))
    (site.folder / package / "plugin.py").write_text(source)
    with pytest.raises(PluginVersionError, match=r"engine-plugin-needy 0\.1\.0 .*; pip install 'pluggy>=999'"):
        Catalog.of(site.folder).resolve("NeedyForCausalLM")
    assert f"{package}.model" not in sys.modules


def test_R050_a_plugin_that_speaks_two_majors_is_used_in_ours(site: FakeSite) -> None:
    points = {"engine.v1": {"FakeForCausalLM": "fake.plugin"}, "engine.v2": {"FakeForCausalLM": "fake.plugin2"}}
    write_distribution(site.folder, "fake", entry_points=points)
    (claim,) = Catalog.of(site.folder).claims()
    assert (claim.module, claim.api, claim.state) == ("fake.plugin", "v1", "ready")


def test_R052_a_folder_that_is_on_the_path_twice_is_one(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM")
    catalog = Catalog.of(site.folder, site.folder)
    assert states(catalog) == {"engine-plugin-fake": "ready"}
    assert catalog.notes == ()
    assert catalog.resolve("FakeForCausalLM").describe() == "engine-plugin-fake 0.1.0"


def test_R052_an_editable_and_a_wheel_of_one_distribution_are_one_and_it_is_told(
    site: FakeSite, tmp_path: Path
) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM", version="0.2.0", editable=True)
    site.install("Engine_Plugin.Fake", "FakeForCausalLM", version="0.1.0", folder=tmp_path / "other")
    catalog = Catalog.of(site.folder, tmp_path / "other")
    (plugin,) = catalog.plugins()
    assert (plugin.version, plugin.origin, plugin.state) == ("0.2.0", "editable", "ready")
    assert "0.1.0" in catalog.notes[0]
    assert "hidden" in catalog.notes[0]


def test_R052_one_distribution_that_names_two_modules_for_one_architecture_is_an_error(site: FakeSite) -> None:
    info = write_distribution(site.folder, "twice", entry_points={"engine.v1": {"TwiceForCausalLM": "one.plugin"}})
    (info / "entry_points.txt").write_text(
        "[engine.v1]\nTwiceForCausalLM = one.plugin\nTwiceForCausalLM = two.plugin\n"
    )
    with pytest.raises(PluginContractError, match=r"twice 0\.1\.0 .*one\.plugin and two\.plugin"):
        Catalog.of(site.folder).resolve("TwiceForCausalLM")


def test_R056_a_plugin_that_the_allow_list_leaves_out_is_not_imported(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = site.install("engine-plugin-kept", "KeptForCausalLM")
    left = site.install("engine-plugin-left", "LeftForCausalLM")
    monkeypatch.setenv("ENGINE_PLUGINS", "Engine_Plugin.KEPT")
    catalog = Catalog.installed()
    assert catalog.resolve("KeptForCausalLM").load("model").__module__ == f"{kept}.model"
    with pytest.raises(PluginMissingError, match="ENGINE_PLUGINS leaves it out"):
        catalog.resolve("LeftForCausalLM")
    assert states(catalog)["engine-plugin-left"] == "disabled"
    assert not [name for name in sys.modules if name.split(".")[0] == left]


def test_R056_an_empty_allow_list_allows_nothing(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("engine-plugin-left", "LeftForCausalLM")
    monkeypatch.setenv("ENGINE_PLUGINS", "")
    assert set(states(Catalog.installed()).values()) == {"disabled"}


def test_R056_a_name_in_the_allow_list_that_is_not_installed_is_told(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_PLUGINS", "engine-plugin-tpyo")
    assert any("engine-plugin-tpyo" in note for note in Catalog.installed().notes)


def test_the_installed_catalog_is_looked_up_again_when_the_path_changes(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Catalog.installed()
    assert Catalog.installed() is before
    site.install("engine-plugin-late", "LateForCausalLM", folder=tmp_path / "late")
    monkeypatch.syspath_prepend(str(tmp_path / "late"))
    assert Catalog.installed().resolve("LateForCausalLM").distribution == "engine-plugin-late"


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,8}([-_.]{1,2}[A-Za-z0-9]{1,8}){0,3}", fullmatch=True))
def test_normalised_names_are_equal_however_they_are_spelled(name: str) -> None:
    plain = normalised(name)
    assert normalised(plain) == plain == normalised(name.upper()) == normalised(plain.replace("-", "._"))


@given(st.text(max_size=40))
def test_any_text_as_a_requirement_is_an_answer_and_no_crash(text: str) -> None:
    assert is_met(text, {"engine-plugin-sdk": "0.1.0"}) in (True, False)
