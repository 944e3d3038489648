"""The serving page's program runs, and its example of an error is what comes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx2

from .conftest import KEY, Served, asking, png

PAGE = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
PROGRAM = re.search(r"```py\n(.*?)```", PAGE, re.DOTALL)
ERROR = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)


def test_the_pages_program_runs(served: Served, tmp_path: Path) -> None:
    (tmp_path / "shapes.png").write_bytes(png())
    assert PROGRAM is not None
    program = PROGRAM[1]
    for said, here in (("http://127.0.0.1:2242", served.url), ("demo/llava", "tiny"), ('"none"', repr(KEY)),
                       ("stream=True", "stream=True, max_tokens=8")):  # fmt: skip
        assert said in program
        program = program.replace(said, here)
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_the_pages_error_is_what_comes(http: httpx2.Client) -> None:
    assert ERROR is not None
    response = http.post("/v1/chat/completions", json={"model": "tiny", "messages": asking("x"), "max_tokens": -1})
    assert response.json() == json.loads(ERROR[1])


def test_the_page_names_every_route_and_series(http: httpx2.Client) -> None:
    for path in http.get("/openapi.json").json()["paths"]:
        assert path.partition("{")[0].rstrip("/") in PAGE, path
    some = {"model": "tiny", "prompt": "x", "max_tokens": 2}
    assert http.post("/v1/completions", json=some).status_code == 200  # with the first one some series begin
    served = http.get("/metrics").text
    for name in re.findall(r"`(engine_\w+)`", PAGE.partition("| series")[2]):
        assert f"\n{name}" in served or f"\n{name}_count" in served, name
