"""A plugin that runs the tiny LLaVA, and breaks, hangs or oversteps where it is told to.

The environment tells its model: it hangs where `TROUBLE` says, while the model is found or while it is loaded, and makes a file
of `TROUBLE_SEEN` first; and it is not loaded while there is a file of `TROUBLE_HOLD`.
"""

from __future__ import annotations

from pathlib import Path

from sdk.testing.fake_dist import FakeSite

ARCHITECTURE = "LlavaForConditionalGeneration"
SLEEP, ABORT = 31, 35
"""Widths of pictures that its processor cannot bear."""
_PLUGIN = """
import threading
from engine_plugin_llava import plugin as sound
from sdk import hookimpl

threading.Thread(target=threading.Event().wait, daemon=True).start()

def routes(app):
    app.add_api_route("/trouble", lambda: "here")

@hookimpl
def engine_architectures():
    (llava,) = [record for record in sound.engine_architectures() if record.name == "LlavaForConditionalGeneration"]
    package = "engine_plugin_trouble"
    own = {"model": f"{package}.model:Bad", "processor": f"{package}.processor:Bad", "model_types": (), "demo": None}
    return [llava.model_copy(update=own)]
"""
_MODEL = """
import os, sys, time
from engine_plugin_llava.model import LlavaForConditionalGeneration

class Bad(LlavaForConditionalGeneration):
    def __init__(self, *, ctx):
        where = "load" if "engine_process" in "".join(sys.argv) else "find"
        if os.environ.get("TROUBLE") == where:
            open(os.environ["TROUBLE_SEEN"], "w").close()
            time.sleep(1000)
        while where == "load" and os.path.exists(os.environ.get("TROUBLE_HOLD", "")):
            time.sleep(0.02)
        super().__init__(ctx=ctx)
"""
_PROCESSOR = f"""
import os, time
from engine_plugin_llava.processing import LlavaMultiModalProcessor

class Bad(LlavaMultiModalProcessor):
    def _call_hf_processor(self, prompt, mm_data, mm_kwargs, tok_kwargs):
        for image in mm_data.get("images", ()):
            if image.width == {SLEEP}:
                time.sleep(1000)
            if image.width == {ABORT}:
                os.abort()
        return super()._call_hf_processor(prompt, mm_data, mm_kwargs, tok_kwargs)
"""


def install(folder: Path) -> list[str]:
    """Install it into a folder that stands for site-packages; the flags that choose it."""
    FakeSite(folder).install(
        "engine-plugin-trouble",
        ARCHITECTURE,
        source=_PLUGIN,
        files={"model.py": _MODEL, "processor.py": _PROCESSOR},
    )
    return ["--plugin", f"{ARCHITECTURE}=engine-plugin-trouble"]
