"""What happens when a plugin's module is imported: what it may not do, and how it is told."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from core.plugins import Catalog, PluginWarning
from core.plugins.guard import watch_import
from sdk import ConfigView
from sdk.errors import (
    InvalidConfigError,
    PluginConflictError,
    PluginContractError,
    PluginError,
    PluginImportError,
)
from sdk.testing.fake_dist import FakeSite, plugin_source

ROOT = Path(__file__).parents[2]
HOOK = "import sdk\n@sdk.hookimpl\ndef engine_architectures():\n    "


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("from os import no_such_name", "ImportError: cannot import name"),
        ("def (:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_R047_a_plugin_that_fails_to_import_is_quarantined_and_the_others_go_on(
    site: FakeSite, line: str, cause: str
) -> None:
    site.install("engine-plugin-broken", "BrokenForCausalLM", imports=line)
    site.install("engine-plugin-sound", "SoundForCausalLM")
    catalog = Catalog.of(site.folder)
    for _ in range(2):  # asked again, it says the same
        with pytest.raises(PluginImportError) as caught:
            catalog.resolve("BrokenForCausalLM")
        message = str(caught.value)
        assert "engine-plugin-broken 0.1.0: cannot import engine_plugin_broken.plugin" in message
        assert cause in message
        assert "plugin.py, line " in message
    assert caught.value.plugin == "engine-plugin-broken 0.1.0"
    assert catalog.resolve("SoundForCausalLM").load("model").__name__ == "Model"
    states = {plugin.distribution: plugin for plugin in catalog.plugins()}
    assert states["engine-plugin-broken"].state == "quarantined"
    assert cause in states["engine-plugin-broken"].reason
    assert states["engine-plugin-sound"].state == "ready"


def test_R047_a_requirement_that_is_not_installed_is_the_cure(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM", imports="import timmy", requires=("timmy>=2",))
    with pytest.raises(PluginImportError, match=r"not installed: pip install 'timmy>=2'"):
        Catalog.of(site.folder).resolve("FakeForCausalLM")


@pytest.mark.parametrize("part", ["model", "processor", "tiny"])
def test_R047_a_part_that_fails_names_target_and_cause(site: FakeSite, part: str) -> None:
    target = "engine_plugin_fake.parts:Part"
    source = plugin_source("FakeForCausalLM", **{"model": "engine_plugin_fake.model:Model", part: target})
    sound = "sdk.Architecture(name='SoundForCausalLM', model='engine_plugin_fake.model:Model')]"
    source = source.rstrip().removesuffix("]") + f", {sound}\n"
    files = {"parts.py": "import gone"}
    site.install("engine-plugin-fake", "FakeForCausalLM", "SoundForCausalLM", source=source, files=files)
    catalog = Catalog.of(site.folder)
    plugin = catalog.resolve("FakeForCausalLM")
    for _ in range(2):
        with pytest.raises(PluginImportError, match=r"engine-plugin-fake 0\.1\.0.*engine_plugin_fake\.parts.*'gone'"):
            plugin.load(part)
    if part == "tiny":  # a model runs without its oracle
        assert catalog.resolve("FakeForCausalLM").load("model")
    else:
        assert catalog.plugins()[0].state == "quarantined"
        with pytest.raises(PluginImportError, match="gone"):
            catalog.resolve("FakeForCausalLM")
    assert catalog.resolve("SoundForCausalLM").load("model")  # the plugin's other architectures go on


def test_R047_a_part_whose_name_is_misspelled_is_told_the_near_one(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM", model="engine_plugin_fake.model:Modell")
    with pytest.raises(PluginImportError, match="no attribute 'Modell'; did you mean Model"):
        Catalog.of(site.folder).resolve("FakeForCausalLM").load("model")


def test_R047_strict_mode_lets_the_plugins_own_exception_through(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_PLUGINS_STRICT", "1")
    site.install("engine-plugin-broken", "BrokenForCausalLM", imports="1 / 0")
    site.install("engine-plugin-hook", "HookForCausalLM", source=HOOK + "return 1 / 0\n")
    for name in ("BrokenForCausalLM", "HookForCausalLM"):
        with pytest.raises(ZeroDivisionError):
            Catalog.of(site.folder).resolve(name)


def test_parts_are_imported_at_their_first_use_and_once(site: FakeSite) -> None:
    package = site.install("engine-plugin-fake", "FakeForCausalLM")
    plugin = Catalog.of(site.folder).resolve("FakeForCausalLM")
    assert f"{package}.model" not in sys.modules
    assert plugin.load("model") is plugin.load("model")
    assert plugin.has("model")
    assert not plugin.has("processor")
    with pytest.raises(PluginContractError, match="names no processor"):
        plugin.load("processor")


def test_R048_what_an_import_changes_in_the_process_is_put_back_and_told(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = f"""
    import logging, os, signal
    os.environ["FAKE_ADDED"] = "1"
    os.environ.pop("FAKE_REMOVED")
    os.chdir({str(tmp_path)!r})
    logging.getLogger().setLevel(5)
    logging.getLogger().addHandler(logging.NullHandler())
    logging.disable(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("hello")
    """
    site.install("engine-plugin-messy", "MessyForCausalLM", imports=bad)
    monkeypatch.setenv("FAKE_REMOVED", "kept")
    root = logging.getLogger()
    before = (dict(os.environ), os.getcwd(), root.level, list(root.handlers), signal.getsignal(signal.SIGTERM))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plugin = Catalog.of(site.folder).resolve("MessyForCausalLM")
    after = (dict(os.environ), os.getcwd(), root.level, list(root.handlers), signal.getsignal(signal.SIGTERM))
    assert after == before
    assert root.manager.disable == 0
    told = " ".join(str(warning.message) for warning in caught if warning.category is PluginWarning)
    changes = [change for change in plugin.warnings if "s to import" not in change]  # which a busy machine takes
    words = ["FAKE_ADDED", "FAKE_REMOVED", "folder", "level", "handlers", "disabled logging", "SIGTERM", "'hello"]
    assert [word for word in words if word not in told] == []
    assert told.count("engine-plugin-messy 0.1.0") == len(plugin.warnings)
    assert len(changes) == len(words)


def test_R048_what_a_failing_import_changed_is_put_back_too(site: FakeSite) -> None:
    site.install("engine-plugin-messy", "MessyForCausalLM", imports="import os; os.environ['FAKE_ADDED'] = '1'; 1 / 0")
    with pytest.warns(PluginWarning, match="FAKE_ADDED"), pytest.raises(PluginImportError):
        Catalog.of(site.folder).resolve("MessyForCausalLM")
    assert "FAKE_ADDED" not in os.environ


def test_R048_what_a_plugin_prints_does_not_reach_stdout(site: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    site.install("engine-plugin-loud", "LoudForCausalLM", imports="print('{not json')")
    with pytest.warns(PluginWarning, match="printed"):
        Catalog.of(site.folder).resolve("LoudForCausalLM")
    output = capsys.readouterr()
    assert output.out == ""
    assert "{not json" in output.err


def test_R048_a_slow_import_is_told() -> None:
    with watch_import(slow_after=-1) as watch:
        pass
    assert "s to import" in watch.changes[0]


def test_R048_torch_defaults_are_put_back(site: FakeSite) -> None:
    torch = pytest.importorskip("torch")
    bad = "import torch; torch.set_default_dtype(torch.float64); torch.set_default_device('meta')"
    site.install("engine-plugin-fake", "FakeForCausalLM", files={"model.py": f"{bad}\nclass Model: pass\n"})
    plugin = Catalog.of(site.folder).resolve("FakeForCausalLM")
    with pytest.warns(PluginWarning, match=r"torch's defaults to torch\.float64 on meta"):
        plugin.load("model")
    assert (torch.get_default_dtype(), torch.get_default_device()) == (torch.float32, torch.device("cpu"))


def test_R048_a_thread_that_an_import_starts_is_told(site: FakeSite) -> None:
    start = "import threading; done = threading.Event(); threading.Thread(target=done.wait, name='fake').start()"
    package = site.install("engine-plugin-fake", "FakeForCausalLM", imports=start)
    try:
        with pytest.warns(PluginWarning, match="started the threads fake"):
            Catalog.of(site.folder).resolve("FakeForCausalLM")
    finally:
        sys.modules[f"{package}.plugin"].done.set()


def test_R048_imports_of_two_threads_are_watched_one_after_the_other() -> None:
    """As where a server looks for several models at once: none is taken for another, and standard output is as before."""
    out, begun, go, done = sys.stdout, threading.Event(), threading.Event(), threading.Event()
    changes: list[list[str]] = []

    def watched() -> None:
        with watch_import() as watch:
            begun.set()
            assert go.wait(60)
        changes.append(watch.changes)

    first, second = threading.Thread(target=watched), threading.Thread(target=watched)
    own = threading.Thread(target=done.wait, name="engine-find")
    try:
        first.start()
        assert begun.wait(60)
        begun.clear()
        own.start()  # the engine's own is nobody's fault
        second.start()
        assert not begun.wait(0.2), "two at once"
        go.set()
        for thread in (first, second):
            thread.join(60)
    finally:  # or they outlive the test, and the process waits for them
        go.set()
        done.set()
    assert len(changes) == 2
    assert not any("engine-find" in change for told in changes for change in told)
    assert sys.stdout is out


def resolve_in_a_fresh_process(site: FakeSite, architecture: str, prelude: str = "") -> str:
    """What resolving raises in a Python that has not loaded torch."""
    code = (
        f"import sys; sys.path[:0] = [{str(site.folder)!r}, {str(ROOT)!r}]\n{prelude}\n"
        "from core.plugins import Catalog\nfrom sdk.errors import PluginError\n"
        f"try:\n    Catalog.installed().resolve({architecture!r})\n"
        "except PluginError as error:\n    print(type(error).__name__, error)\n"
    )
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout


def test_R049_a_plugin_module_that_loads_torch_breaks_the_contract(site: FakeSite) -> None:
    (site.folder / "torch").mkdir()
    (site.folder / "torch" / "__init__.py").write_text("")
    site.install("engine-plugin-heavy", "HeavyForCausalLM", imports="import torch")
    said = resolve_in_a_fresh_process(site, "HeavyForCausalLM")
    assert said.startswith("PluginContractError engine-plugin-heavy 0.1.0")
    assert "loaded torch" in said


def test_R049_a_plugin_module_that_initialises_cuda_breaks_the_contract(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "_initialized", False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: torch.cuda._initialized)
    site.install("engine-plugin-eager", "EagerForCausalLM", imports="import torch; torch.cuda._initialized = True")
    with pytest.raises(PluginContractError, match=r"engine-plugin-eager 0\.1\.0 .*initialised CUDA"):
        Catalog.of(site.folder).resolve("EagerForCausalLM")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (HOOK.replace("architectures()", "architectures(config)") + "return []", "config"),
        (
            HOOK.replace("engine_architectures", "engine_architecture") + "return []",
            "Did you mean engine_architectures",
        ),
        (HOOK.replace("@sdk.hookimpl\n", "") + "return []", "put @sdk.hookimpl above it"),
        ("", "gives no answer to engine_architectures()"),
        (HOOK + "return None", "gives no answer"),
        (HOOK + "return []", "must return a list"),
        (HOOK + "return 'FakeForCausalLM'", "must return a list"),
        (HOOK + "return [{'name': 'FakeForCausalLM'}]", "one item is {'name'"),
        (HOOK + "return [sdk.Architecture(name='FakeForCausalLM', model='no target')]", "ValidationError"),
        (HOOK + "return [sdk.Architecture(name='FakeForCausalLM', model='a:b')] * 2", "more than once"),
        (HOOK + "return [sdk.Architecture(name='Other', model='a:b')]", "FakeForCausalLM is in [engine.v1] but not"),
    ],
)
def test_R053_a_hook_that_is_not_as_specified_breaks_the_contract(site: FakeSite, source: str, words: str) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM", source=source)
    with pytest.raises(PluginContractError) as caught:
        Catalog.of(site.folder).resolve("FakeForCausalLM")
    assert str(caught.value).startswith("engine-plugin-fake 0.1.0 breaks the plugin contract: ")
    assert words in str(caught.value)


def test_R053_metadata_and_hook_must_agree_both_ways_and_about_model_types(site: FakeSite) -> None:
    source = plugin_source("FakeForCausalLM", "ExtraForCausalLM", model_types=("fake",))
    site.install("engine-plugin-fake", "FakeForCausalLM", source=source)
    with pytest.raises(PluginContractError) as caught:
        Catalog.of(site.folder).resolve("FakeForCausalLM")
    assert "ExtraForCausalLM is in engine_architectures() but not in [engine.v1]" in str(caught.value)
    assert "fake is in engine_architectures() but not in [engine.v1.model_types]" in str(caught.value)


def test_R053_one_refused_plugin_leaves_the_manager_usable(site: FakeSite) -> None:
    bad = HOOK.replace("engine_architectures", "engine_architecture") + "return []"
    site.install("engine-plugin-bad", "BadForCausalLM", source=bad)
    site.install("engine-plugin-good", "GoodForCausalLM")
    catalog = Catalog.of(site.folder)
    with pytest.raises(PluginContractError):
        catalog.resolve("BadForCausalLM")
    assert catalog.resolve("GoodForCausalLM").describe() == "engine-plugin-good 0.1.0"


def test_R053_one_module_in_two_distributions_is_told(site: FakeSite) -> None:
    site.install("engine-plugin-fork", "ForkForCausalLM")
    site.install("engine.plugin.fork.of.it", "OtherForCausalLM")
    text = (site.folder / "engine.plugin.fork.of.it-0.1.0.dist-info").exists()
    assert not text  # names are normalised in folder names
    points = site.folder / "engine_plugin_fork_of_it-0.1.0.dist-info" / "entry_points.txt"
    points.write_text("[engine.v1]\nOtherForCausalLM = engine_plugin_fork.plugin\n")
    catalog = Catalog.of(site.folder)
    catalog.resolve("ForkForCausalLM")
    with pytest.raises(PluginContractError, match="engine-plugin-fork's as well"):
        catalog.resolve("OtherForCausalLM")


def test_R054_a_hook_that_raises_names_the_plugin_and_the_hook(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM", source=HOOK + "return {}['gone']\n")
    with pytest.raises(PluginContractError) as caught:
        Catalog.of(site.folder).resolve("FakeForCausalLM")
    message = str(caught.value)
    assert "engine-plugin-fake 0.1.0" in message
    assert "engine_architectures() raised KeyError: 'gone'" in message
    assert "plugin.py, line 4" in message
    assert isinstance(caught.value.__cause__, KeyError)


CAPABILITIES = """
import sdk
from sdk.errors import InvalidConfigError
def fine(config): return sdk.Capabilities(modalities=("image",))
def fails(config): return config["gone"]
def wrong(config): return {"tasks": ["generate"]}
def refuses(config): raise InvalidConfigError("this variant is not supported")
"""


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        ("fails", PluginContractError, "capabilities() for FakeForCausalLM raised KeyError: 'gone'"),
        ("wrong", PluginContractError, "must return sdk.Capabilities"),
        ("refuses", InvalidConfigError, "this variant is not supported"),
        ("absent", PluginImportError, "no attribute 'absent'"),
    ],
)
def test_R054_a_capabilities_function_that_fails_names_the_plugin(
    site: FakeSite, function: str, error: type[Exception], words: str
) -> None:
    target = f"engine_plugin_fake.told:{function}"
    site.install("engine-plugin-fake", "FakeForCausalLM", files={"told.py": CAPABILITIES}, capabilities=target)
    plugin = Catalog.of(site.folder).resolve("FakeForCausalLM")
    with pytest.raises(error) as caught:
        plugin.capabilities({})
    assert words in str(caught.value)
    if isinstance(caught.value, PluginError):
        assert "engine-plugin-fake 0.1.0" in str(caught.value)


def test_capabilities_are_told_by_the_function_and_completed_by_the_record(site: FakeSite) -> None:
    target = "engine_plugin_fake.told:fine"
    files = {"told.py": CAPABILITIES}
    site.install("engine-plugin-fake", "FakeForAll", files=files, capabilities=target, transcription="a:B")
    site.install("engine-plugin-part", "PartModel", kind="component")
    catalog = Catalog.of(site.folder)
    told = catalog.resolve("FakeForAll").capabilities({})
    assert told.modalities == ("image",)
    assert told.tasks == ("generate", "transcription")
    assert catalog.resolve("PartModel").capabilities({}).tasks == ()


PART_CAPABILITIES = """
import sdk
def whole(config): return config.capabilities_of("text_config", "causal-lm", model_type="part")
def full(config): return sdk.Capabilities(attention=("full",))
def sliding(config): return sdk.Capabilities(attention=("sliding",))
"""


@pytest.mark.parametrize("text", [{}, {"model_type": "part"}, {"architectures": ["PartForCausalLM"]}], ids=str)
def test_capabilities_of_a_part_are_told_by_its_own_plugin_under_the_same_choices(
    site: FakeSite, text: dict[str, Any]
) -> None:
    files = {"told.py": PART_CAPABILITIES}
    site.install("engine-plugin-whole", "WholeModel", files=files, capabilities="engine_plugin_whole.told:whole")
    for name, kind in (("one", "full"), ("two", "sliding")):
        told = f"engine_plugin_{name}.told:{kind}"
        site.install(f"engine-plugin-{name}", "PartForCausalLM", model_types=("part",), files=files, capabilities=told)
    catalog, view = Catalog.of(site.folder), ConfigView({"text_config": text} if text else {})
    for name, kind in (("one", "full"), ("two", "sliding")):
        plugin = catalog.resolve("WholeModel", pins={"PartForCausalLM": f"engine-plugin-{name}"})
        assert plugin.capabilities(view).attention == (kind,)
    with pytest.raises(PluginConflictError, match="engine-plugin-one"):
        catalog.resolve("WholeModel").capabilities(view)
