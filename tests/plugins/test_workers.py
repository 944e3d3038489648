"""The resolved record, in really spawned processes: a worker runs what the main process runs, or says why not."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.plugins import Catalog, verify_record
from sdk import registry
from sdk.errors import EngineError, PluginContractError, PluginVersionError
from sdk.testing.fake_dist import FakeSite

ROOT = Path(__file__).parents[2]
CHILD = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from core.plugins import Catalog, verify_record
from sdk.errors import EngineError
record = json.loads(sys.argv[2])
try:
    plugin = verify_record(record)
    print(plugin.describe(), plugin.load("model").__module__, sorted(m for m in sys.modules if "engine_plugin" in m))
except EngineError as error:
    print(type(error).__name__, error)
"""


def in_a_worker(record: dict[str, Any], *path: Path) -> str:
    """What a fresh process with this path makes of a record that crossed as JSON."""
    arguments = [json.dumps([str(folder) for folder in (*path, ROOT)]), json.dumps(record)]
    command = [sys.executable, "-P", "-c", CHILD, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def record_of(site: FakeSite, architecture: str = "FakeForCausalLM") -> dict[str, Any]:
    return Catalog.of(site.folder).resolve(architecture).record()


def test_R055_a_worker_with_the_same_plugin_imports_exactly_that(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM")
    site.install("engine-plugin-other", "OtherForCausalLM")
    said = in_a_worker(record_of(site), site.folder)
    assert said.startswith("engine-plugin-fake 0.1.0 engine_plugin_fake.model")
    assert "other" not in said


def test_R055_a_plugin_that_the_worker_does_not_have_is_named(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM")
    said = in_a_worker(record_of(site))
    assert said.startswith("PluginContractError engine-plugin-fake 0.1.0")
    assert "not installed in this worker" in said
    assert sys.executable in said


def test_R055_another_version_in_the_worker_is_refused(site: FakeSite, tmp_path: Path) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM")
    other = tmp_path / "other"
    site.install("engine-plugin-fake", "FakeForCausalLM", version="0.2.0", folder=other)
    said = in_a_worker(record_of(site), other)
    assert said.startswith("PluginVersionError")
    assert "0.1.0" in said
    assert "0.2.0" in said


@pytest.mark.parametrize("how", [{}, {"editable": True}, {"wheel": False}])
def test_R055_the_same_version_with_other_code_is_refused(site: FakeSite, tmp_path: Path, how: dict[str, bool]) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM", **how)  # type: ignore[arg-type]
    other = tmp_path / "other"
    changed = {"model.py": "class Model:\n    changed = True\n"}
    site.install("engine-plugin-fake", "FakeForCausalLM", folder=other, files=changed, **how)  # type: ignore[arg-type]
    record = record_of(site)
    assert in_a_worker(record, site.folder).startswith("engine-plugin-fake 0.1.0 ")
    said = in_a_worker(record, other)
    assert said.startswith("PluginContractError")
    assert "sha256" in said


def test_R055_a_hook_that_answers_differently_in_the_worker_is_refused(site: FakeSite) -> None:
    source = (
        "import sdk, os\n@sdk.hookimpl\ndef engine_architectures():\n"
        "    name = 'Model' if 'PYTEST_CURRENT_TEST' in os.environ else 'Other'\n"
        "    return [sdk.Architecture(name='FakeForCausalLM', model=f'engine_plugin_fake.model:{name}')]\n"
    )
    site.install("engine-plugin-fake", "FakeForCausalLM", source=source)
    record = record_of(site)
    record["targets"]["model"] = "engine_plugin_fake.model:Third"
    said = in_a_worker(record, site.folder)
    assert said.startswith("PluginContractError engine-plugin-fake 0.1.0 names another model")


def test_R055_another_sdk_in_the_worker_is_refused(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM")
    record = {**record_of(site), "sdk": "0.0.1"}
    with pytest.raises(PluginVersionError, match=r"engine-plugin-sdk 0\.0\.1"):
        verify_record(record)


def test_R055_what_is_no_record_is_refused() -> None:
    with pytest.raises(PluginContractError, match="not a resolved plugin record"):
        verify_record({"architecture": "FakeForCausalLM"})


def spawned(record: dict[str, Any], queue: Any) -> None:
    """What the engine's own workers do."""
    try:
        queue.put(verify_record(record).load("model").__module__)
    except EngineError as error:
        queue.put(str(error))


def test_R055_multiprocessing_spawn_gets_by_with_the_record(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=spawned, args=(record_of(site), queue))
    process.start()
    answer = queue.get(timeout=60)
    process.join()
    assert answer == "engine_plugin_fake.model"


def test_R055_a_fallback_crosses_under_the_name_that_was_asked_for(site: FakeSite) -> None:
    site.install("engine-plugin-any", "*")
    record = record_of(site, "NeverHeardOfForCausalLM")
    assert (record["architecture"], record["entry"]) == ("NeverHeardOfForCausalLM", "*")
    assert in_a_worker(record, site.folder).startswith("engine-plugin-any 0.1.0")


def test_R055_a_class_object_serves_in_this_process_only(site: FakeSite) -> None:
    class Model:
        pass

    registry.register("HandMadeForCausalLM", Model)
    plugin = Catalog.of(site.folder).resolve("HandMadeForCausalLM")
    assert plugin.load("model") is Model
    with pytest.raises(PluginContractError, match="in this process only; register 'module:attribute'"):
        plugin.record()


def test_R055_a_target_registered_by_hand_crosses_to_a_worker(site: FakeSite) -> None:
    package = site.install("engine-plugin-fake", "FakeForCausalLM")
    registry.register("HandMadeForCausalLM", f"{package}.model:Model", role="causal-lm")
    record = record_of(site, "HandMadeForCausalLM")
    assert in_a_worker(record, site.folder) == "in-process engine_plugin_fake.model ['engine_plugin_fake', " + (
        "'engine_plugin_fake.model']"
    )


def test_R055_a_workers_catalog_holds_the_recorded_plugins_and_no_other(site: FakeSite) -> None:
    site.install("engine-plugin-a", "SharedForCausalLM", model_types=("shared",))
    site.install("engine-plugin-b", "SharedForCausalLM", model_types=("shared",))
    site.install("engine-plugin-eyes", "EyesModel", role="vision-encoder", model_types=("eyes",))
    main, pins = Catalog.of(site.folder), {"SharedForCausalLM": "engine-plugin-b"}
    records = [main.resolve("SharedForCausalLM", pins=pins).record(), main.resolve("EyesModel").record()]
    worker = Catalog.from_records(json.loads(json.dumps(records)))
    assert worker.resolve("SharedForCausalLM").distribution == "engine-plugin-b"
    assert worker.resolve_model_type("shared", "causal-lm").distribution == "engine-plugin-b"
    assert worker.resolve_model_type("eyes", "vision-encoder").distribution == "engine-plugin-eyes"
    assert {claim.distribution for claim in worker.claims()} == {"engine-plugin-b", "engine-plugin-eyes"}
