"""`engine transcribe`: speech to text, for files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidRequestError
from .output import note
from .plugin_options import PLUGIN_OPTION_HELP, parse_plugin_options
from .quantization import QUANTIZATION_HELP, parse_quantization

if TYPE_CHECKING:
    from ..llm import LLM
    from ..transcription.result import Transcription


def transcribe(
    model: Annotated[str, typer.Argument(help="Folder in HF layout, hub id, or a shipped demo.")],
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE...]", help="Sound, or video with sound.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="That is spoken; left out: detected.")] = None,
    translate: Annotated[bool, typer.Option("--translate", help="Put it into another language.")] = False,
    to_language: Annotated[str | None, typer.Option("--to-language", help="To translate to.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Text that comes before, such as names.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0: the likeliest text.")] = 0.0,
    format: Annotated[str, typer.Option("--format", "-f", help="text, json, verbose_json, srt or vtt.")] = "text",
    timestamps: Annotated[
        str | None, typer.Option("--timestamps", help="segment or word; of subtitles, segment where the model can.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for one file each, in the place of the terminal.")
    ] = None,
    example: Annotated[bool, typer.Option("--example", help="The clip that the demo brings, with times.")] = False,
    max_seconds: Annotated[float | None, typer.Option("--max-seconds", help="Longest clip; 1800 by itself.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    quantization: Annotated[str | None, typer.Option("--quantization", help=QUANTIZATION_HELP)] = None,
    plugin: Annotated[
        list[str] | None, typer.Option("--plugin", help="ARCH=distribution, where two claim one.")
    ] = None,
    plugin_option: Annotated[list[str] | None, typer.Option("--plugin-option", help=PLUGIN_OPTION_HELP)] = None,
) -> int:
    """Turn speech into text. A file that cannot be used is said on standard error; the others are done."""
    from .. import LLM
    from ..kernels.compiling import tell_of_compiling
    from ..plugins import parse_pins
    from ..transcription.wishes import checked_temperature
    from ..transcription.writers import FORMATS

    if format not in FORMATS:
        raise InvalidRequestError(f"--format is one of {', '.join(FORMATS)}, not {format!r}", param="--format")
    if timestamps not in (None, "segment", "word"):
        raise InvalidRequestError(f"--timestamps is segment or word, not {timestamps!r}", param="--timestamps")
    checked_temperature(temperature, "--temperature")
    if bool(files) == example:
        raise InvalidRequestError(
            "give the files to transcribe, or --example for the clip that a demo brings", param="--example"
        )
    files = list(files or _example(model))
    if example and timestamps is None:
        timestamps = "segment"
    names = _names(files, output, FORMATS[format].suffix)
    options: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "plugins": parse_pins(plugin or []),
        "plugin_options": parse_plugin_options(plugin_option),
    }
    if max_seconds is not None:
        options["max_audio_seconds"] = max_seconds
    if quantization is not None:
        options["quantization"] = parse_quantization(quantization)
    with LLM(model, **options) as llm:
        tell_of_compiling(note)
        if timestamps is None and FORMATS[format].timed:
            timestamps = _best_timestamps(llm)
        made = llm.transcribe(
            files,
            language=language,
            task="translate" if translate else "transcribe",
            prompt=prompt,
            temperature=temperature,
            timestamps=timestamps,  # type: ignore[arg-type]  # checked above
            to_language=to_language,
            on_error="return",
        )
    return _write(files, names, made, _Writer(format, timed=timestamps is not None))


def _example(model: str) -> list[Path]:
    """The clips that a demo suggests."""
    from ..demos import find_demo, read_example

    folder = find_demo(model) or Path(model)
    (clips,) = read_example(folder, "audio")
    return [folder / clip for clip in clips]


def _best_timestamps(llm: LLM) -> str | None:
    """Segments, where the model tells them; without, each piece of the clip is one subtitle."""
    from ..transcription.speech import Speech

    if Speech(llm.engine).hooks.supports_segment_timestamp:
        return "segment"
    note("note: this model gives no time stamps; subtitles are as long as the pieces it hears")
    return None


def _names(files: list[Path], output: Path | None, suffix: str) -> list[Path | None]:
    """Where each file's text goes; None: to the terminal. Two files never go to one place."""
    if output is None:
        return [None] * len(files)
    names = [output / f"{file.stem}{suffix}" for file in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequestError(f"two of the files would be written to {twice}; rename one", param="-o")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InvalidRequestError(f"the folder {str(output)!r} cannot be made: {e.strerror}", param="-o") from e
    return list(names)


@dataclass(frozen=True)
class _Writer:
    """How a transcription becomes text: plain text with times is for people, one line for each segment or word."""

    format: str
    timed: bool

    def __call__(self, transcription: Transcription) -> str:
        from ..transcription.writers import timed_lines

        if self.format == "text" and self.timed:
            return timed_lines(transcription)
        return transcription.render(self.format)  # type: ignore[arg-type]  # checked before


def _write(files: list[Path], names: list[Path | None], made: list[Transcription], write: _Writer) -> int:
    """Print or write each text; the exit code."""
    failed = False
    for file, name, transcription in zip(files, names, made):
        if transcription.error is not None:
            failed = True
            note(f"error: {file}: {str(transcription.error).removeprefix(f'clip {str(file)!r} ')}")
            continue
        text = write(transcription)
        if name is not None:
            try:
                name.write_text(text, encoding="utf-8")
            except OSError as e:
                failed = True
                note(f"error: {name} cannot be written: {e.strerror}")
            else:
                print(name)
            continue
        if len(files) > 1 or write.timed:
            note(f"{file}:")
        sys.stdout.write(text)
        sys.stdout.flush()
    return 1 if failed else 0
