"""The page in headless Chromium, on a server of two models that asks for a key."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from urllib3.exceptions import HTTPError

from core.demos import find_demo

from ..endless import make_endless
from ..http.conftest import (  # two of these put a server up again after a test that has failed
    PATIENCE,
    Served,
    _sound_servers,  # noqa: F401
    pytest_runtest_makereport,  # noqa: F401
)
from ..serving import serving

KEY = "sk-page"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1100,820",
    # A microphone that beeps, and nobody to be asked for leave.
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip


BROKEN = (WebDriverException, HTTPError, OSError)
"""What comes of a browser that has crashed or does not answer."""


class Page:
    """The page, as who uses it sees it."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def one(self, selector: str) -> WebElement:
        """The first element of a selector; waits for it."""
        return self.until(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), f"no {selector}")[0]

    def all(self, selector: str) -> list[WebElement]:
        """Elements of a selector as they are now."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, true: Callable[[], Any], what: str) -> Any:
        """Wait for something."""
        waiting = WebDriverWait(self.driver, PATIENCE, 0.05, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: true(), what)

    def runs(self, script: str) -> Any:
        """What a script says."""
        return self.driver.execute_script(script)

    def click(self, selector: str) -> None:
        """Click on the first element of a selector, once no picture that still loads can move it."""
        element = self.one(selector)
        self.until(lambda: self.runs("return [...document.images].every((i) => i.complete)"), "a picture without end")
        element.click()

    def text_of(self, selector: str) -> str:
        """The text of the last such element, as it stands in the document."""
        return str(self.all(selector)[-1].get_property("textContent"))

    def choose(self, model: str) -> None:
        """Change to a model, and wait until the page shows it."""
        self.driver.execute_script(
            "const s = document.getElementById('model'); s.value = arguments[0]; s.onchange()", model
        )
        self.until(lambda: self.driver.title.startswith(model) and self.all("main:not([hidden])"), model)

    def answer(self) -> WebElement:
        """The last answer, once it is whole."""
        self.until(lambda: self.all(".assistant .speed"), "no answer")
        self.until(lambda: not self.all(".assistant.running"), "an answer without end")
        return self.all(".assistant")[-1]

    def limit(self, tokens: int) -> None:
        """Set how long answers may be."""
        self.click("#settings summary")
        self.one("#max-tokens").send_keys(str(tokens))
        self.click("#settings summary")

    def write_down(self) -> None:
        """Have the clip written down, once the page knows its length, without which nobody can say how fast that was."""
        self.until(lambda: self.runs("return document.getElementById('player').duration > 0"), "a clip without length")
        self.click("#write")
        self.until(lambda: "times as fast" in self.one("#speech-speed").text, "no end")

    def drop(self, file: Path, mime: str) -> None:
        """Drop a file onto the page."""
        self.driver.execute_script(
            """const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], arguments[1], { type: arguments[2] }));
            for (const kind of ["dragover", "drop"])
              document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));""",
            base64.b64encode(file.read_bytes()).decode(), file.name, mime,
        )  # fmt: skip


class Browser:
    """Chromium, opened when it is wanted, and anew where a test has brought it down.

    Args:
        binary, control: Its program, and the one that drives it.
        folder: Makes a folder for what it keeps.
    """

    def __init__(self, binary: str, control: str, folder: Callable[[], Path]) -> None:
        self._binary, self._control, self._folder = binary, control, folder
        self._driver: Chrome | None = None

    def driver(self) -> Chrome:
        """One that does what it is told."""
        try:
            if self._driver is not None:
                self._driver.execute_script("return 0")
        except BROKEN:
            self.close()
        if self._driver is None:
            self._driver = self._opened()
        return self._driver

    def close(self) -> None:
        """End it, or what is left of it."""
        driver, self._driver = self._driver, None
        if driver is not None:
            with contextlib.suppress(*BROKEN):
                driver.quit()

    def _opened(self) -> Chrome:
        options = ChromeOptions()
        options.binary_location = self._binary
        for flag in (*FLAGS, f"--user-data-dir={self._folder()}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # Whatever proxy the machine has is not for addresses of the machine itself.
        service = ChromeService(self._control, env={**os.environ, "NO_PROXY": "*", "no_proxy": "*"})
        driver = Chrome(options, service)
        driver.set_script_timeout(PATIENCE)
        return driver


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary, control = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or control is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)")
    found = Browser(binary, control, lambda: tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture
def driver(browser: Browser) -> Chrome:
    return browser.driver()


@pytest.fixture(scope="session")
def eye_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that brings an example."""
    folder = tmp_path_factory.mktemp("eye")
    make_endless(folder)
    shown = find_demo("demo/llava")
    assert shown is not None
    for name in ("example.json", "example.png"):
        shutil.copy(shown / name, folder)
    return folder


@pytest.fixture(scope="session")
def served(eye_folder: Path) -> Iterator[Served]:
    names = ["--served-model-name", "eye", "--served-model-name", "ear"]
    options = ["--dtype", "float32", "--kv-cache-bytes", str(64 * 2**20), "--api-key", KEY]
    with serving(str(eye_folder), "demo/whisper", *names, *options) as found:
        yield found


@pytest.fixture
def page(driver: Chrome, served: Served) -> Iterator[Page]:
    """The page, opened with a key; it must not have complained to the browser's console."""
    driver.get(served.url)
    driver.execute_script("sessionStorage.setItem('engine-key', arguments[0])", KEY)
    driver.get_log("browser")  # what was before
    driver.refresh()
    found = Page(driver)
    found.until(lambda: found.all("main:not([hidden])"), "no model")
    yield found
    problems = [
        entry["message"] for entry in driver.get_log("browser") if not re.search(r"status of 4\d\d", entry["message"])
    ]
    assert problems == []
