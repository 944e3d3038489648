"""`engine run`: ask a model once, or chat with it. Not named `run`, which would hide `core.cli.run`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EngineError
from .output import edit_lines, note, shown
from .plugin_options import PLUGIN_OPTION_HELP, parse_plugin_options
from .quantization import QUANTIZATION_HELP, parse_quantization

if TYPE_CHECKING:
    from ..llm import LLM
    from ..sampling import SamplingParams


def run(
    model: Annotated[str, typer.Argument(help="Folder in HF layout, hub id, or a shipped demo such as demo/llava.")],
    prompt: Annotated[str | None, typer.Argument(help="What to ask; left out: chat.")] = None,
    image: Annotated[list[Path] | None, typer.Option("--image", "-i", help="A picture; may be repeated.")] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System message.")] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Ask what the demo itself suggests, about its picture.")
    ] = False,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Most tokens of an answer.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="0: always the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p")] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    quantization: Annotated[str | None, typer.Option("--quantization", help=QUANTIZATION_HELP)] = None,
    max_model_len: Annotated[int | None, typer.Option("--max-model-len", help="Longest sequence, in tokens.")] = None,
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", help="ARCH=distribution, where two claim one.")
    ] = None,
    plugin_option: Annotated[list[str] | None, typer.Option("--plugin-option", help=PLUGIN_OPTION_HELP)] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The prompt is the whole prompt: no chat template.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line an answer.")] = False,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Print the answer as it comes.")] = True,
) -> None:
    """Ask a model a question, with pictures if you like; without a question, chat with it."""
    from .. import LLM
    from ..kernels.compiling import tell_of_compiling
    from ..plugins import parse_pins

    options: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "plugins": parse_pins(plugin or []),
        "plugin_options": parse_plugin_options(plugin_option),
    }
    if max_model_len is not None:
        options["max_model_len"] = max_model_len
    if quantization is not None:
        options["quantization"] = parse_quantization(quantization)
    start = time.monotonic()
    with LLM(model, **options) as llm:
        talk = _Conversation(
            llm, _params(llm, max_tokens, temperature, top_p, seed), system, as_json=as_json, stream=stream
        )
        if not as_json:
            plan = llm.plan
            note(
                f"{plan.architecture} by {plan.plugin}, {plan.dtype} on {plan.device}, {time.monotonic() - start:.1f} s to load"
            )
            tell_of_compiling(note)
        if example:
            _show_example(talk, llm.engine.checkpoint.folder)
        elif prompt is not None and raw:
            talk.complete(prompt, image or [])
        elif prompt is not None:
            talk.ask(prompt, image or [])
        else:
            _chat(talk, image or [])


def _params(
    llm: LLM, max_tokens: int | None, temperature: float | None, top_p: float | None, seed: int | None
) -> SamplingParams:
    """The model's own settings, with what the user gave in their place."""
    from dataclasses import replace

    given = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    return replace(llm.default_sampling_params(), **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]


class _Conversation:
    """What was said so far, and how answers are printed."""

    def __init__(self, llm: LLM, params: SamplingParams, system: str | None, *, as_json: bool, stream: bool) -> None:
        self.llm, self.params, self.as_json, self.stream = llm, params, as_json, stream
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []

    def ask(self, question: str, images: list[Path]) -> None:
        """Ask within the conversation, and remember question and answer."""
        content: Any = question
        if images:
            content = [*({"type": "image", "image": p} for p in images), {"type": "text", "text": question}]
        asked = [*self.messages, {"role": "user", "content": content}]
        answer = self._print(self.llm.chat(asked, self.params, stream=True), question)
        self.messages = [*asked, {"role": "assistant", "content": answer}]

    def complete(self, prompt: str, images: list[Path]) -> None:
        """Complete a prompt as it is."""
        data = {"image": list(images)} if images else {}
        self._print(self.llm.generate({"prompt": prompt, "multi_modal_data": data}, self.params, stream=True), prompt)

    def _print(self, deltas: Any, question: str) -> str:
        text, tokens, reason, start, prompt_tokens = "", 0, None, time.monotonic(), 0
        first: float | None = None
        for delta in deltas:
            part = delta.outputs[0]
            first = first or time.monotonic()
            text, tokens, reason = text + part.text, tokens + len(part.token_ids), part.finish_reason
            prompt_tokens = len(delta.prompt_token_ids)
            if self.stream and not self.as_json:
                print(shown(part.text), end="", flush=True)
        seconds = time.monotonic() - start
        rate = (tokens - 1) / max(1e-9, time.monotonic() - first) if first is not None and tokens > 1 else 0.0
        if self.as_json:
            print(json.dumps({
                "prompt": question, "text": text, "finish_reason": reason, "prompt_tokens": prompt_tokens, "tokens": tokens,
                "seconds": round(seconds, 4), "model": self.llm.plan.architecture, "plugin": self.llm.plan.plugin,
            }, ensure_ascii=False), flush=True)  # fmt: skip
        else:
            print("" if self.stream else shown(text), flush=True)
            wait = (first or start) - start
            note(f"[{prompt_tokens} + {tokens} tokens, first after {wait * 1e3:.0f} ms, then {rate:.0f} tokens/s]")
        return text


def _show_example(talk: _Conversation, folder: Path) -> None:
    from ..demos import read_example
    from .picture import draw

    questions, picture = read_example(folder, "questions", "image")
    picture = folder / picture
    if not talk.as_json:
        print(f"\nThe picture: {picture}\n")
        print(draw(picture, width=44))
    for question in questions:
        talk.messages = []
        if not talk.as_json:
            print(f"\n> {question}", flush=True)
        talk.ask(question, [picture])


def _chat(talk: _Conversation, images: list[Path]) -> None:
    """Read questions until the end of input. `/image PATH` adds a picture to the next one, `/clear` starts anew."""
    if sys.stdin.isatty():
        edit_lines()
        note("Type a message; /image PATH adds a picture to it, /clear starts anew, Ctrl-D ends.")
    pending = list(images)
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line.startswith("/image "):
            pending.append(Path(line.removeprefix("/image ").strip()))
        elif line == "/clear":
            talk.messages, pending = (
                talk.messages[:1] if talk.messages[:1] and talk.messages[0]["role"] == "system" else [],
                [],
            )
        elif line:
            try:
                talk.ask(line, pending)
                pending = []
            except EngineError as e:
                note(f"error: {e}")
