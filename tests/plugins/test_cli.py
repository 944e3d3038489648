"""The `engine` command, run as users run it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.cli import COMMANDS, exit_code, run
from core.plugins import Catalog
from sdk.errors import InvalidRequestError, ModelNotFoundError, PluginMissingError, RequestAborted
from sdk.testing.fake_dist import FakeSite

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "numpy", "pydantic", "rich")


def python(*arguments: str, site: FakeSite, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python process that sees the fake site-packages first."""
    path = os.pathsep.join([str(site.folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
    )


def engine(*arguments: str, site: FakeSite, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "core.cli", *arguments, site=site, **environment)


def test_listing_many_plugins_loads_nothing_heavy_and_no_plugin(site: FakeSite) -> None:
    for number in range(20):
        site.install(f"engine-plugin-many{number}", f"Many{number}ForCausalLM", model_types=(f"many{number}",))
    code = (
        "import sys; from core.cli import run; assert run(['plugins', 'list']) == 0\n"
        f"print([m for m in sys.modules if m in {HEAVY!r} or m.startswith('engine_plugin')], file=sys.stderr)"
    )
    done = python("-c", code, site=site)
    assert done.stderr.strip() == "[]", done.stderr
    assert "Many19ForCausalLM" in done.stdout


def test_R047_list_shows_what_metadata_proves_and_check_adds_what_broke(site: FakeSite) -> None:
    site.install("engine-plugin-broken", "BrokenForCausalLM", imports="import os; os.write(1, b'{noise'); 1 / 0")
    site.install("engine-plugin-exits", "ExitsForCausalLM", imports="import os; os._exit(7)")
    site.install("engine-plugin-loud", "LoudForCausalLM", imports="print('hello')")
    site.install("engine-plugin-sound", "SoundForCausalLM")
    site.install("engine-plugin-new", "NewForCausalLM", group="engine.v2")
    allowed = "engine-plugin-broken,engine-plugin-exits,engine-plugin-loud,engine-plugin-sound,engine-plugin-new"
    plain = engine("plugins", "list", "--json", site=site, ENGINE_PLUGINS=allowed)
    states = {item["distribution"]: item["state"] for item in json.loads(plain.stdout)}
    assert plain.returncode == 0
    assert states["engine-plugin-broken"] == "ready"
    assert states["engine-plugin-new"] == "incompatible"
    checked = engine("plugins", "list", "--check", "--json", site=site, ENGINE_PLUGINS=allowed)
    found = {item["name"]: (item["state"], item["reason"]) for item in json.loads(checked.stdout)}
    assert checked.returncode == 1
    assert found["broken"][0] == "quarantined"
    assert "ZeroDivisionError" in found["broken"][1]
    assert found["exits"] == ("quarantined", "importing it ended the process with exit status 7: no message")
    assert found["loud"][0] == "ready"
    assert "printed 'hello" in found["loud"][1]
    assert found["sound"] == ("ready", "")
    assert found["new"][0] == "incompatible"


def test_R048_check_ends_an_import_that_does_not_end(site: FakeSite) -> None:
    site.install("engine-plugin-hangs", "HangsForCausalLM", imports="import threading; threading.Event().wait()")
    (status,) = Catalog.of(site.folder).check(timeout=1.0)
    assert (status.state, status.reason) == ("quarantined", "importing it did not finish within 1 s")


def test_R047_show_of_a_broken_plugin_is_one_clear_line_and_exit_2(site: FakeSite) -> None:
    site.install("engine-plugin-broken", "BrokenForCausalLM", imports="1 / 0")
    done = engine("plugins", "show", "BrokenForCausalLM", site=site)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: engine-plugin-broken 0.1.0: cannot import engine_plugin_broken.plugin")
    assert len(done.stderr.splitlines()) == 1


def test_show_tells_what_the_plugin_says(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM", license="MIT", model_types=("fake",))
    facts = json.loads(engine("plugins", "show", "FakeForCausalLM", "--json", site=site).stdout)
    assert facts["distribution"] == "engine-plugin-fake"
    assert facts["model"] == "engine_plugin_fake.model:Model"
    assert facts["model_types"] == ["fake"]
    assert facts["capabilities"]["tasks"] == ["generate"]
    text = engine("plugins", "show", "FakeForCausalLM", site=site).stdout
    assert "license       MIT" in text.splitlines()


def test_R051_why_explains_and_the_user_chooses(site: FakeSite) -> None:
    site.install("engine-plugin-a", "SharedForCausalLM")
    site.install("engine-plugin-b", "SharedForCausalLM")
    asked = json.loads(engine("plugins", "why", "SharedForCausalLM", "--json", site=site).stdout)
    assert asked["answer"] is None
    assert "is claimed by engine-plugin-a 0.1.0 and engine-plugin-b 0.1.0" in asked["error"]
    assert [item["distribution"] for item in asked["considered"]] == ["engine-plugin-a", "engine-plugin-b"]
    chosen = engine("plugins", "why", "SharedForCausalLM", "--plugin", "SharedForCausalLM=engine-plugin-b", site=site)
    assert chosen.stdout.rstrip().endswith("SharedForCausalLM is run by engine-plugin-b 0.1.0.")
    wrong = engine("plugins", "why", "SharedForCausalLM", "--plugin", "engine-plugin-b", site=site)
    assert (wrong.returncode, wrong.stdout) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plugin", "list"], "No such command 'plugin'. Did you mean 'plugins'"),
        (["plugins", "lst"], "No such command 'lst'. Did you mean 'list'?"),
        (["plugins", "list", "--jsn"], "--json"),
        (["plugins", "show"], "Missing argument"),
    ],
)
def test_wrong_usage_names_the_nearest_and_exits_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert "Traceback" not in output.err


def test_without_a_command_the_commands_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "plugins" in capsys.readouterr().err
    assert run(["plugins"]) == 2
    assert "why" in capsys.readouterr().err
    assert run(["plugins", "--help"]) == 0
    assert "why" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_the_table_is_there_and_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*name.split(), "--help"]) == 0
    assert f"Usage: engine {name}" in capsys.readouterr().out


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"engine {project['version']}\n"


def test_exit_codes_tell_a_run_that_failed_from_one_that_did_not_start() -> None:
    assert exit_code(PluginMissingError("no plugin")) == 2
    assert exit_code(InvalidRequestError("wrong", param="--plugin")) == 2
    assert exit_code(ModelNotFoundError("no folder", param="model")) == 2
    assert exit_code(InvalidRequestError("wrong", param="prompt")) == 1
    assert exit_code(RequestAborted("aborted")) == 1


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("core.cli.doctor.examine", interrupted)
    assert run(["doctor"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_terminal_that_is_not_utf8_gets_question_marks(site: FakeSite) -> None:
    site.install("engine-plugin-fake", "FakeForCausalLM", upstream="Zürich – 模型")
    done = engine("plugins", "show", "FakeForCausalLM", site=site, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "Z?rich ? ??" in done.stdout


def test_doctor_reports_the_machine_and_survives_a_torch_that_is_broken(site: FakeSite) -> None:
    (site.folder / "torch").mkdir()
    (site.folder / "torch" / "__init__.py").write_text("raise OSError('libcudart.so: cannot open')")
    site.install("engine-plugin-fake", "FakeForCausalLM")
    done = engine("doctor", "--json", site=site, ENGINE_SECRET="s3cret")
    report = json.loads(done.stdout)
    assert report["engine"]["imported from"] == str(ROOT / "core")
    assert report["packages"]["pydantic"]
    assert "libcudart" in report["torch"]["error"]
    assert "ENGINE_SECRET" in report["environment"]
    assert "s3cret" not in done.stdout
    assert "engine-plugin-fake" in {plugin["distribution"] for plugin in report["plugins"]}
    text = engine("doctor", site=site)
    assert "engine-plugin-fake 0.1.0" in text.stdout


def test_a_folder_of_the_users_own_that_is_named_core_is_told(site: FakeSite, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "core").mkdir(parents=True)
    (own / "core" / "__init__.py").write_text("")
    code = f"import sys, core.cli; sys.path.append({str(own)!r}); core.cli.run(['plugins', 'list'])"
    done = python("-c", code, site=site)
    assert f"warning: {own / 'core'} bears the name of a package of engine-plugin-sdk" in done.stderr


def test_an_sdk_from_elsewhere_than_core_stops_the_start(site: FakeSite, tmp_path: Path) -> None:
    code = (
        "import core.cli, sdk, sys\n"
        f"sdk.__file__ = {str(tmp_path / 'sdk' / '__init__.py')!r}\n"
        "sys.exit(core.cli.run(['plugins', 'list']))"
    )
    done = python("-c", code, site=site)
    assert done.returncode == 2
    assert "must come from one place" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_module_of_a_command_hides_a_function_of_the_package() -> None:
    modules = {command.target.partition(":")[0] for command in COMMANDS.values()}
    assert modules.isdisjoint({"main", "run", "exit_code"}), "once it is imported, it stands in the function's place"
