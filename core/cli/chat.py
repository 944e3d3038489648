"""`engine chat`: talk with a running server, by any maker, in OpenAI's form."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from ..client.endpoint import DEFAULT_URL, Endpoint, missing
from ..errors import EngineError
from .output import edit_lines, note, shown
from .server_options import ApiKey, ServedName, Url

if TYPE_CHECKING:
    from ..client.talk import Talk

COMMANDS = """\
/image PATH    attach a picture or clip to the next message
/system TEXT   put this before the conversation; without TEXT, nothing
/reset         begin anew
/model NAME    let another model answer; without NAME, list them
/help          this list
/quit          end, as Ctrl-D; Ctrl-C stops an answer"""


def chat(
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    model: ServedName = None,
    image: Annotated[
        list[Path] | None, typer.Option("--image", "-i", help="A picture or clip for the first message.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="System message.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Most tokens of an answer.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="0: always the likeliest token.")] = None,
    stats: Annotated[bool, typer.Option("--stats/--no-stats", help="Say after each answer how fast it came.")] = True,
) -> int:
    """Talk with a running server. Without a terminal each line of the input is a message; 1 where one of them failed."""
    try:
        from ..client.talk import Talk
    except ImportError as e:
        raise missing(e) from e
    options = {"max_tokens": max_tokens, "temperature": temperature}
    with Talk(Endpoint.of(url, api_key), model, system, {k: v for k, v in options.items() if v is not None}) as talk:
        names = [str(entry["id"]) for entry in talk.models()]
        talk.model = model or (names[0] if names else None)
        for path in image or []:
            talk.attach(path)
        if sys.stdin.isatty():
            note(f"{talk.model} at {talk.endpoint.base}. /help lists commands, Ctrl-D ends.")
            return _interactive(talk, stats)
        return _piped(talk, stats)


def _interactive(talk: Talk, stats: bool) -> int:
    """Read messages from a terminal until the end."""
    edit_lines()
    # Who was started from something in the background, a script's `&` say, has inherited that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            note("\n(Ctrl-D ends)")
            continue
        if line == "/quit":
            return 0
        try:
            _do(talk, line, stats)
        except KeyboardInterrupt:
            note("\n[stopped]")
        except EngineError as e:
            note(f"error: {e}")


def _piped(talk: Talk, stats: bool) -> int:
    """Answer each line of the input."""
    failed = False
    for line in sys.stdin:
        if line.strip() == "/quit":
            break
        try:
            _do(talk, line.strip(), stats)
        except EngineError as e:
            failed = True
            note(f"error: {e}")
    return 1 if failed else 0


def _do(talk: Talk, line: str, stats: bool) -> None:
    """One line: a command or a message."""
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    if command == "/help":
        note(COMMANDS)
    elif command == "/reset":
        talk.reset()
    elif command == "/system":
        talk.system = rest or None
    elif command == "/image":
        talk.attach(Path(rest).expanduser())
    elif command == "/model" and rest:
        talk.model = rest
    elif command == "/model":
        note("\n".join(f"{'*' if entry['id'] == talk.model else ' '} {entry['id']}" for entry in talk.models()))
    elif command.startswith("/") and "/" not in command[1:] and command[1:].isalpha():
        note(f"there is no command {command}\n{COMMANDS}")
    elif line:
        with contextlib.closing(talk.ask(line)) as pieces, _interrupts() as interrupted:
            for piece in pieces:
                print(shown(piece), end="", flush=True)
                if interrupted:
                    raise KeyboardInterrupt
        print(flush=True)
        if stats:
            note(f"[{talk.answer.told()}]")


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The signals of Ctrl-C that came. Each raises `KeyboardInterrupt`, too, but who is in the midst of a callback
    loses that."""
    came: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)
