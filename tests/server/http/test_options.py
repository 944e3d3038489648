"""Where a server's options come from, and a server in poor surroundings: nothing can be written, and the clock jumps."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

import core.cli
from core.errors import StartupError
from core.server import start as server_start
from core.server.client import EngineClient
from core.server.settings import ServerSettings

from .conftest import ENGINE, PATIENCE, Served, Start, application, asking, calling, error_of, shared
from .test_lifecycle import run

CHAT = "/v1/chat/completions"
WORDS = "correct horse battery"
ROOT = Path(__file__).parents[3]


class Given:
    """What would be served."""

    models: list[str]
    settings: ServerSettings
    options: Mapping[str, Any]


Ask = Callable[..., Given]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Reads a command line of `engine serve`, in an environment."""
    given = Given()

    def note(models: list[str], settings: ServerSettings, options: Mapping[str, Any]) -> int:
        given.models, given.settings, given.options = models, settings, options
        return 0

    monkeypatch.setattr(server_start, "serve", note)
    for name in [name for name in os.environ if name.startswith("ENGINE_")]:
        monkeypatch.delenv(name)

    def asked(*arguments: str, **environment: str) -> Given:
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            assert core.cli.run(["serve", *arguments]) == 0
        return given

    return asked


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command line is refused with, before anything starts."""
    assert core.cli.run(["serve", *arguments]) == 2
    return capsys.readouterr().err


def test_in_the_environment_what_may_be_repeated_has_a_value_a_line(ask: Ask) -> None:
    given = ask(
        "m",
        ENGINE_API_KEY=f"{WORDS}\na,b\n",
        ENGINE_SERVED_MODEL_NAME="my model",
        ENGINE_PLUGIN_OPTION='names=["a b", "c"]\nrows=1 2',
        ENGINE_LIMIT="image=2,audio=1",
        ENGINE_CHAT_TEMPLATE="a {{ b }} c",
    )
    assert given.settings.api_keys == (WORDS, "a,b")
    assert given.settings.served_model_names == ("my model",)
    assert given.options["plugin_options"] == {"names": ["a b", "c"], "rows": "1 2"}
    assert given.options["limit_mm_per_prompt"] == {"image": 2, "audio": 1}
    assert given.options["chat_template"] == "a {{ b }} c"


def test_repeated_options_too_come_from_flags_before_the_environment_and_from_that_before_the_file(
    ask: Ask, tmp_path: Path
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("api-key: of the file\nmodel: m")
    file = ("--config", str(config))
    assert ask(*file).settings.api_keys == ("of the file",)
    assert ask(*file, ENGINE_API_KEY="its own").settings.api_keys == ("its own",)
    assert ask(*file, "--api-key", "x y", ENGINE_API_KEY="its own").settings.api_keys == ("x y",)
    assert ask(*file, ENGINE_API_KEY="").settings.api_keys == ("of the file",)


@pytest.mark.parametrize("text", [" ", "\n", "a\n\nb", "a\r\n"])
def test_a_variable_with_something_that_is_no_key_does_not_stand_for_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.setenv("ENGINE_API_KEY", text)
    assert "api_keys" in refused(capsys, "m")


def test_what_a_file_has_for_options_of_names_and_values(ask: Ask, tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("limit: {image: 0}\nplugin-option: {a: [1, 2], b: null, c: t u, d: 3}\nmax-queued-tokens: 5")
    assert ask("m", "--config", str(config)).options == {
        "limit_mm_per_prompt": {"image": 0},
        "plugin_options": {"a": [1, 2], "b": None, "c": "t u", "d": "3"},
        "max_queued_tokens": 5,
    }
    config.write_text("# nothing yet\n")
    assert ask("m", "--config", str(config)).options == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [("limit: 4", "limit maps names"), ("prot: 3", "'port'"), ("- x", "map the names"), ("a: [", "cannot be read")],
)
def test_what_is_wrong_with_a_file_names_the_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, says: str
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(text)
    said = refused(capsys, "m", "--config", str(config))
    assert f"--config {config}: " in said
    assert says in said


@pytest.mark.parametrize(
    ("arguments", "says"), [(("--host", ""), "host"), (("--ssl-certfile", "bad.pem"), "--ssl-certfile")]
)
def test_R091_a_host_that_would_be_every_one_and_a_certificate_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert says in refused(capsys, "m", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["nosuch", "demo/nosuch"])
def test_R091_a_model_that_is_not_there_is_no_start(model: str) -> None:
    ended = run("serve", model, "--port", "0")
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("nosuch'") == 1, ended.stderr


@pytest.mark.asyncio
async def test_a_word_of_a_key_opens_nothing(ask: Ask) -> None:
    app = application(api_keys=ask("m", ENGINE_API_KEY=WORDS).settings.api_keys)
    for key, status in [("horse", 401), ("correct", 401), (WORDS, 200)]:
        async with calling(app, key) as client:
            assert (await client.get("/v1/models")).status_code == status, key


@pytest.mark.asyncio
async def test_R091_without_a_folder_for_its_sockets_nothing_starts(
    monkeypatch: pytest.MonkeyPatch, llava_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(StartupError, match="set TMPDIR"):
        await EngineClient.create(str(llava_folder))
    assert "Traceback" not in caplog.text


# ---- a server in poor surroundings -----------------------------------------------------------------------------------

SURROUNDINGS = """
import itertools, time
_real, _calls = time.time, itertools.count()
time.time = lambda: _real() - 86400 * (next(_calls) % 1000)

import _multiprocessing, _posixshmem, errno, os

def _full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

_posixshmem.shm_open = _full
_multiprocessing.SemLock = type("SemLock", (), {"__new__": _full, "SEM_VALUE_MAX": _multiprocessing.SemLock.SEM_VALUE_MAX})
"""
"""Each time that the clock is asked, it is a day earlier, and now and then years later; and there is no room in /dev/shm."""
LIMITS = {"body_bytes": 2**18, "timeout": 100.0, "queued_requests": 9, "queued_tokens": 4096}


@pytest.fixture(scope="module")
def poor(start: Start, llava_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server without a folder of its user's, without shared memory, with a clock that jumps, and with bounds of its own."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(SURROUNDINGS)
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "HF_HOME", "NUMBA_CACHE_DIR", "TMPDIR"), "/proc/nowhere")
    environment = {**nowhere, "PYTHONPATH": str(site), "ENGINE_API_KEY": WORDS, "ENGINE_MAX_QUEUED_TOKENS": "4096"}
    more = ["--max-body-bytes", "262144", "--request-timeout", "100", "--max-queued-requests", "9"]
    name = ["--served-model-name", "tiny"]
    with start(str(llava_folder), *name, *ENGINE, *more, environment=environment) as served, shared(served):
        yield served


@pytest.fixture(scope="module")
def there(poor: Served) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {WORDS}"}
    with httpx2.Client(base_url=poor.url, headers=headers, timeout=PATIENCE) as found:
        yield found


@pytest.mark.slow
def test_R091_a_server_needs_no_place_to_write_and_no_shared_memory(there: httpx2.Client) -> None:
    assert there.post(CHAT, json={"model": "tiny", "messages": asking("x"), "max_tokens": 2}).status_code == 200


@pytest.mark.slow
def test_of_several_keys_in_the_environment_clients_use_the_first(
    poor: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGINE_API_KEY", f"{WORDS}\nanother\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n"))
    assert core.cli.run(["chat", "--url", poor.url, "--max-tokens", "2"]) == 0, capsys.readouterr().err


@pytest.mark.slow
def test_R094_nothing_depends_on_what_the_clock_says(poor: Served, there: httpx2.Client) -> None:
    asked = {"model": "tiny", "prompt": "x", "max_tokens": 8, "timeout": 50, "ignore_eos": True}
    created = []
    for _ in range(3):
        response = there.post("/v1/completions", json=asked)
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["finish_reason"] == "length"
        created.append(response.json()["created"])
    assert created != sorted(created), "the clock does not jump"
    with there.stream("POST", "/v1/completions", json={**asked, "stream": True}) as stream:
        lines = [line for line in stream.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert "error" not in "".join(lines)
    assert there.get("/health").status_code == there.get("/ready").status_code == 200
    assert "WARNING" not in poor.log, poor.log


def test_R094_the_clock_is_read_only_to_tell_the_time() -> None:
    reads = re.compile(r"\btime\.time(_ns)?\(|=\s*time\.time\b|from time import|\bdatetime\.(now|utcnow|today)\(")
    files = [file for part in ("core", "sdk") for file in (ROOT / part).rglob("*.py")]
    assert len(files) > 100
    found = {str(file.relative_to(ROOT)) for file in files if reads.search(file.read_text(encoding="utf-8"))}
    assert found == {"core/server/protocol/base.py", "core/server/models.py"}  # `created` of replies and of models


@pytest.mark.slow
def test_limits_of_requests_are_told_and_are_those_that_hold(there: httpx2.Client) -> None:
    entry = there.get("/v1/models/tiny").json()
    limits = entry["request_limits"]
    assert limits.items() >= LIMITS.items()
    assert set(entry["limits"]) == {"image"}
    over = {
        "n": limits["n"] + 1,
        "stop": ["x"] * (limits["stop"] + 1),
        "stop_token_ids": [5] * (limits["stop_token_ids"] + 1),
        "logprobs": limits["logprobs"] + 1,
        "prompt_logprobs": limits["prompt_logprobs"] + 1,
        "bad_words": ["x"] * (limits["bad_words"] + 1),
        "logit_bias": {str(i): 1 for i in range(limits["logit_bias"] + 1)},
        "allowed_token_ids": [5] * (limits["allowed_token_ids"] + 1),
        "prompt": ["x"] * (limits["prompts"] + 1),
    }
    for name, value in over.items():
        response = there.post("/v1/completions", json={"model": "tiny", "prompt": "x", "max_tokens": 1, name: value})
        assert response.status_code == 400, name
        assert name in (error_of(response)["param"] or ""), response.text
    for name, chars in (("stop", "stop_chars"), ("bad_words", "bad_word_chars")):
        asked = {"model": "tiny", "prompt": "x", "max_tokens": 1, name: ["x" * (limits[chars] + 1)]}
        assert there.post("/v1/completions", json=asked).status_code == 400, name
    many = [{"role": "user", "content": "x"}] * (limits["messages"] + 1)
    response = there.post(CHAT, json={"model": "tiny", "messages": many, "max_tokens": 1})
    assert (response.status_code, error_of(response)["param"]) == (400, "messages")
    assert there.post(CHAT, json={"x": "x" * limits["body_bytes"]}).status_code == 413
