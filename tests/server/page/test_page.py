"""The page at `/` in a browser: it asks, shows and stops, writes down speech, tells who answers, how fast, and what is wrong."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from core.demos import find_demo
from core.errors import InvalidRequestError
from core.server.routes.page import _data_uri

from ..http.conftest import PATIENCE, Served, application, calling
from .conftest import KEY, Page


def demo_file(demo: str, name: str) -> Path:
    folder = find_demo(demo)
    assert folder is not None
    return folder / name


EXAMPLE = demo_file("demo/llava", "example.png")
TOKENS = 8
COUNT_WHAT_IS_RECORDED = """
const start = MediaRecorder.prototype.start;
window.recorded = 0;
MediaRecorder.prototype.start = function () {
  this.addEventListener("dataavailable", ({ data }) => { window.recorded += data.size > 0; });
  start.call(this, 50);  // which asks for what there is every 50 ms of sound
};
"""


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=served.url, headers=headers, timeout=PATIENCE) as found:
        yield found


def asked(http: httpx2.Client, question: str) -> str:
    """What the server answers about the example's picture."""
    url = f"data:image/png;base64,{base64.b64encode(EXAMPLE.read_bytes()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    body = {"model": "eye", "messages": [{"role": "user", "content": parts}], "max_tokens": TOKENS}
    text: str = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    return text


def transcribed(http: httpx2.Client, clip: Path, form: str) -> Any:
    """What the server hears in a clip."""
    fields = {"model": "ear", "response_format": form}
    return http.post("/v1/audio/transcriptions", data=fields, files={"file": clip.read_bytes()}).json()


def test_what_comes_is_this_servers_own(http: httpx2.Client) -> None:
    """Every file of the page names only files of the page, and the headers hold the browser to it."""
    html = http.get("/").text
    assert not re.search(r"https?://|<style|style=|onclick=|<script(?![^>]*src=)", html)
    for path in re.findall(r'(?:src|href)="([^"]+)"', html):
        reply = http.get(f"/{path}")
        assert reply.status_code == 200
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.asyncio
async def test_the_page_is_open_and_what_it_calls_is_not() -> None:
    async with calling(application(api_keys=("sk-one",))) as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/page/page.js")).status_code == 200
        for path in ("/page/about?model=x", "/page/", "/page/nothing.js", "/page/../v1/models", "/v1/models"):
            assert (await client.get(path)).status_code == 401, path


def test_a_checkpoint_cannot_have_other_files_shown(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("secret.png", "inner/secret.png", "example.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert _data_uri(tmp_path, "secret.png") == "data:image/png;base64,eA=="
    for name in ("../inner/../secret.png", "inner/secret.png", str(tmp_path / "secret.png"), "example.txt", ".."):
        with pytest.raises(InvalidRequestError):
            _data_uri(tmp_path, name)


def test_the_key_is_asked_for_once_a_tab(page: Page) -> None:
    page.driver.execute_script("sessionStorage.clear()")
    page.driver.refresh()
    for key, opens in (("sk-wrong", False), (KEY, True)):
        page.until(lambda: page.one("#key-dialog").is_displayed(), "no dialog")
        page.one("#key").send_keys(key, Keys.ENTER)
        if not opens:
            page.until(lambda: "not one of them" in page.one("#key-problem").text, "no word of a wrong key")
    for _ in range(2):
        page.until(lambda: page.all("main:not([hidden])"), "no model")
        assert "engine-plugin-llava" in page.one("#about").text
        page.driver.refresh()
    page.until(lambda: page.all("main:not([hidden])"), "no model")
    assert not page.one("#key-dialog").is_displayed()
    assert page.driver.execute_script("return localStorage.getItem('engine-key')") is None


def test_the_demos_question_is_answered_and_timed(page: Page, http: httpx2.Client) -> None:
    page.limit(TOKENS)
    text = page.one(".welcome button").text
    page.click(".welcome button")
    answer = page.answer()
    assert page.text_of(".assistant .text") == asked(http, text)
    speed = r"first token after [\d.]+ m?s.* · \d+ \+ 8 tokens · cut off: .* · engine-plugin-llava \d"
    assert re.search(speed, answer.text), answer.text


def test_a_picture_is_dropped_and_asked_about(page: Page, http: httpx2.Client) -> None:
    page.limit(TOKENS)
    page.drop(EXAMPLE, "image/png")
    page.one("#attached img")
    page.one("#question").send_keys("How many shapes", Keys.SHIFT, Keys.ENTER, Keys.SHIFT, "are there?", Keys.ENTER)
    page.answer()
    assert page.text_of(".assistant .text") == asked(http, "How many shapes\nare there?")
    assert page.one(".user img")
    assert not page.all("#attached li")


def test_a_question_waits_for_a_file_that_is_being_read(page: Page) -> None:
    page.limit(TOKENS)
    page.driver.execute_script("""
        const read = FileReader.prototype.readAsDataURL;
        FileReader.prototype.readAsDataURL = function (file) {
            window.readOn = () => { FileReader.prototype.readAsDataURL = read; read.call(this, file); };
        };
    """)
    page.driver.find_element("id", "chat-files").send_keys(str(EXAMPLE))
    page.until(lambda: page.driver.execute_script("return !!window.readOn"), "nothing is read")
    page.one("#question").send_keys("How many?", Keys.ENTER)
    assert not page.all(".user")
    page.driver.execute_script("window.readOn()")
    page.answer()
    assert page.one(".user img")


def test_a_picture_can_be_chosen_and_taken_off_again(page: Page) -> None:
    page.driver.find_element("id", "chat-files").send_keys(str(EXAMPLE))
    page.click("#attached button")
    assert not page.all("#attached li")


def test_what_the_model_does_not_take_is_said(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    page.drop(tmp_path / "notes.pdf", "application/pdf")
    assert "takes text and image, not application/pdf" in page.one("#log .wrong").text
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.drop(tmp_path / "broken.png", "image/png")
    page.one("#attached img")
    page.one("#question").send_keys("What is this?", Keys.ENTER)
    said = page.until(lambda: [e for e in page.all("#log .wrong") if "invalid_image" in e.text], "no error")[0]
    assert "request " in said.text
    assert "Try again" in said.text


def test_escape_stops_an_answer_and_the_server_hears_of_it(page: Page, http: httpx2.Client) -> None:
    page.one("#question").send_keys("Go on", Keys.ENTER)
    page.until(lambda: page.one(".assistant.running .text").text, "nothing came")
    page.one("#question").send_keys(Keys.ESCAPE)
    assert "stopped" in page.answer().text
    idle = r'engine_num_requests_running\{[^}]*model="eye"[^}]*\} 0'
    page.until(lambda: re.search(idle, http.get("/metrics").text), "it still runs")
    page.one("#question").send_keys("And again", Keys.ENTER)
    page.until(lambda: page.one(".assistant.running .text").text, "nothing came")
    page.click("#stop")
    page.until(lambda: len(page.all(".assistant .speed")) == 2, "the button did not stop it")


def test_text_from_a_model_or_a_person_is_never_markup(page: Page) -> None:
    page.limit(TOKENS)
    page.one("#question").send_keys("<img src=x onerror=document.title='bad'><b>bold</b>", Keys.ENTER)
    page.answer()
    assert not page.all(".user img, .user b, .assistant img")
    shown = page.driver.execute_script(
        "return import('/page/dom.js').then(({ rich, make }) =>"
        " make('div', {}, rich(arguments[0])).innerHTML)", "a **b** `<i>`\n```js\n<script>\n```\n<u>"
    )  # fmt: skip
    assert shown == "a <strong>b</strong> <code>&lt;i&gt;</code>\n<pre><code>&lt;script&gt;\n</code></pre>&lt;u&gt;"


def test_the_demos_clip_is_written_down(page: Page, http: httpx2.Client) -> None:
    clip = demo_file("demo/whisper", "example.flac")
    said = transcribed(http, clip, "json")
    pieces = transcribed(http, clip, "verbose_json")["segments"]
    page.choose("ear")
    page.click("#speech-example")
    page.write_down()
    assert page.one("#written").text == said["text"].strip()
    assert "engine-plugin-whisper" in page.one("#speech-speed").text
    page.drop(clip, "audio/flac")
    Select(page.one("#form")).select_by_visible_text("text with times")
    page.write_down()
    rows = page.all("#written li")
    assert [row.text.partition("\n")[2] for row in rows] == [piece["text"].strip() for piece in pieces]


def test_the_microphone_is_recorded(page: Page, served: Served) -> None:
    page.choose("ear")
    page.runs(COUNT_WHAT_IS_RECORDED)
    page.click("#record")
    page.until(lambda: page.one("#record").text == "End recording", "no recording")
    page.until(lambda: page.runs("return window.recorded") > 10, "no sound")
    before = served.log.count("transcriptions 200")
    page.click("#record")
    page.until(lambda: "recording.wav" in page.one("#clip-name").text, "no clip")
    page.write_down()
    page.until(lambda: served.log.count("transcriptions 200") == before + 1, "nobody has transcribed it")


def test_keyboard_alone_reaches_everything(page: Page) -> None:
    """What can be clicked is a control that Tab reaches, with a name."""
    controls = page.driver.execute_script(
        "return [...document.querySelectorAll('button, select, input:not([hidden]), textarea, audio, summary')]"
        ".map((e) => [e.tabIndex, e.labels?.[0]?.innerText || e.ariaLabel || e.innerText || e.textContent || e.title || e.id])"
    )
    assert controls
    assert all(index >= 0 and name for index, name in controls), json.dumps(controls)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system(page: Page, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    ground = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    lightness = sum(int(part) for part in re.findall(r"\d+", ground)[:3]) / 3
    assert (lightness > 128) == (scheme == "light")
