"""`engine plugins search|lock|graph|doctor`: the installed plugins as a set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.cli import run
from core.plugins import Catalog
from core.plugins.diagnosis import diagnose
from core.plugins.graph import as_dot, as_tree, plugin_graph
from core.plugins.lock import differences, make_lock, read_lock
from core.plugins.search import search
from sdk.errors import InvalidConfigError, PluginConflictError
from sdk.testing.fake_dist import FakeSite


def only(site: FakeSite) -> Catalog:
    return Catalog.of(site.folder)


def test_search_finds_what_is_installed_and_what_could_be(site: FakeSite) -> None:
    site.install("engine-plugin-acme", "AcmeForCausalLM", model_types=("acme_text",))
    found = search(only(site), "ACME for")
    assert [(p.distribution, p.architectures, p.installed) for p in found] == [
        ("engine-plugin-acme", ("AcmeForCausalLM",), "0.1.0")
    ]
    assert search(only(site), "acme_text") == search(only(site), "acme")
    offered = search(only(site), "gemma2")
    assert [(p.installed, p.install) for p in offered] == [(None, "pip install engine-plugin-gemma")]
    assert next(p.distribution for p in search(only(site), "Gema2ForCausalLM")) == "engine-plugin-gemma"
    assert search(only(site), "nothing of the kind") == []
    assert search(only(site), "--") == []


@pytest.mark.parametrize("query", ["", "  "])
def test_a_search_for_nothing_is_an_error(query: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "search", query]) == 2
    assert "say what to look for" in capsys.readouterr().err


def test_a_lock_tells_every_difference(site: FakeSite) -> None:
    site.install("engine-plugin-one", "OneForCausalLM")
    site.install("engine-plugin-two", "TwoForCausalLM")
    locked = make_lock(only(site))
    assert list(locked["architectures"].items()) == [
        ("OneForCausalLM", "engine-plugin-one"),
        ("TwoForCausalLM", "engine-plugin-two"),
    ]
    assert list(differences(locked, make_lock(only(site)))) == []

    code = next(site.folder.rglob("*one*/plugin.py"))
    code.write_text(code.read_text() + "\n# changed\n")
    site.install("engine-plugin-three", "ThreeForCausalLM")
    said = list(differences(locked, make_lock(only(site))))
    assert len(said) == 2
    assert "engine-plugin-one 0.1.0 has other files" in said[0]
    assert "engine-plugin-three 0.1.0 is installed, and not locked" in said[1]
    back = list(differences(make_lock(only(site)), locked))
    assert any("engine-plugin-three 0.1.0 is locked, and not installed: pip install" in line for line in back)


def test_a_lock_needs_a_choice_where_two_claim_one(site: FakeSite) -> None:
    site.install("engine-plugin-one", "SameForCausalLM")
    site.install("engine-plugin-two", "SameForCausalLM")
    with pytest.raises(PluginConflictError):
        make_lock(only(site))
    one = make_lock(only(site), {"SameForCausalLM": "engine-plugin-one"})
    two = make_lock(only(site), {"SameForCausalLM": "engine-plugin-two"})
    assert list(differences(one, two)) == [
        "SameForCausalLM is answered by engine-plugin-two, and by engine-plugin-one in the lock: "
        "--plugin SameForCausalLM=engine-plugin-one"
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99, "plugins": {}, "architectures": {}}'])
def test_what_is_no_lock_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfigError, match="not a lock"):
        read_lock(text)


def test_the_lock_as_a_command(site: FakeSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "engine-plugins.lock"
    assert run(["plugins", "lock", "-o", str(file)]) == 0
    assert run(["plugins", "lock", "--check", str(file)]) == 0
    site.install("engine-plugin-late", "LateForCausalLM")
    Catalog.installed(refresh=True)
    assert run(["plugins", "lock", "--check", str(file)]) == 1
    assert "engine-plugin-late 0.1.0 is installed, and not locked" in capsys.readouterr().out
    assert run(["plugins", "lock", "--check", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "latin").write_bytes(b"\xe9t\xe9")
    assert run(["plugins", "lock", "--check", str(tmp_path / "latin")]) == 2
    assert run(["plugins", "lock", "-o", str(tmp_path / "no" / "folder")]) == 2


def test_the_graph_of_what_needs_what(site: FakeSite) -> None:
    site.install("engine-plugin-base", "BaseForCausalLM")
    site.install("engine-plugin-top", "TopForCausalLM", requires=("engine-plugin-base>=0.1", "numpy"))
    site.install("engine-plugin-odd", "OddForCausalLM", requires=("engine-plugin-gone>=2",))
    graph = plugin_graph(only(site))
    assert [edge.plugin for edge in graph["engine-plugin-top"]] == ["engine-plugin-base"]
    assert as_tree(graph) == [
        "engine-plugin-odd",
        "└─ engine-plugin-gone  (engine-plugin-gone>=2 is not installed)",
        "engine-plugin-top",
        "└─ engine-plugin-base",
    ]
    assert '"engine-plugin-odd" -> "engine-plugin-gone" [style=dashed];' in as_dot(graph)


def test_a_graph_that_goes_round_ends(site: FakeSite) -> None:
    site.install("engine-plugin-a", "AForCausalLM", requires=("engine-plugin-b",))
    site.install("engine-plugin-b", "BForCausalLM", requires=("engine-plugin-a",))
    assert any("needs itself" in line for line in as_tree(plugin_graph(only(site))))


def test_the_doctor_names_what_is_wrong_and_the_cure(site: FakeSite) -> None:
    site.install("engine-plugin-broken", "BrokenForCausalLM", imports="1 / 0")
    site.install("engine-plugin-one", "SameForCausalLM")
    site.install("engine-plugin-two", "SameForCausalLM", requires=("no-such-thing>=3",))
    found = {(f.plugin, f.serious): f for f in diagnose(only(site))}
    assert "ZeroDivisionError" in found["engine-plugin-broken", True].what
    assert found["engine-plugin-one and engine-plugin-two", True].cure.startswith("--plugin SameForCausalLM=")
    assert found["engine-plugin-two", True].cure == "pip install 'no-such-thing>=3'"


def test_the_doctor_as_a_command(site: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    site.install("engine-plugin-broken", "BrokenForCausalLM", imports="1 / 0")
    assert run(["plugins", "doctor", "--json"]) == 1
    plugins = {finding["plugin"] for finding in json.loads(capsys.readouterr().out)}
    assert "engine-plugin-broken" in plugins
