"""The `engine` command. Each subcommand is imported when it is called, so that the quick ones are quick.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or no start, 130 Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from sdk.errors import EngineError, ModelNotFoundError, StartupError

from .. import __version__
from .._shadow import check_import_origin


class Command(NamedTuple):
    """One command: where its function is, as `"module:function"` within this package, and its line in the help."""

    target: str
    help: str


COMMANDS: dict[str, Command] = {
    "run": Command("ask:run", "Ask a model once, or chat with it."),
    "transcribe": Command("transcribe:transcribe", "Turn speech into text."),
    "serve": Command("serve:serve", "Serve models over HTTP, in OpenAI's form."),
    "chat": Command("chat:chat", "Talk with a running server."),
    "run-batch": Command("run_batch:run_batch", "Do a file of requests, in OpenAI's form, without a server."),
    "bench serve": Command("bench:serve", "Measure how fast a running server answers."),
    "explain": Command("explain:explain", "Tell what a model would be on this machine."),
    "plugins list": Command("plugins:list_", "List the installed plugins and their states."),
    "plugins show": Command("plugins:show", "Show what a plugin says about an architecture."),
    "plugins why": Command("plugins:why", "Explain which plugin runs an architecture, and why."),
    "plugins search": Command("plugin_set:search", "Find the plugin that runs something."),
    "plugins graph": Command("plugin_set:graph", "Show which plugins need which others."),
    "plugins lock": Command("plugin_set:lock", "Write down the installed plugins, or compare with what was."),
    "plugins doctor": Command("plugin_set:doctor", "Look for what is wrong with the installed plugins."),
    "plugins new": Command("new:new", "Make a plugin that works, to be changed into yours."),
    "plugins migrate": Command("migrate:migrate", "Rewrite a model file of vLLM or Aphrodite to the SDK."),
    "plugins verify": Command("verify:verify", "Prove a plugin against the laws of the SDK and transformers."),
    "doctor": Command("doctor:doctor", "Show versions, devices, plugins and what looks wrong."),
}
"""Every command, in the order of the help; a first word that several share is a group."""

GROUPS = {
    "bench": "Measure how fast things are.",
    "plugins": "Find out about installed plugins, and make new ones.",
}

# typer carries click inside or depends on it, by version; this is UsageError of either.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code."""
    _make_output_safe()
    try:
        for warning in check_import_origin():
            _complain(f"warning: {warning}")
        code = build_app(arguments)(args=list(arguments), prog_name="engine", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except EngineError as error:
        _complain(f"error: {error}")
        return exit_code(error)
    except _UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "engine"
        _complain(f"error: {error.format_message()}\nTry: {where} --help")
        return 2
    except (typer.Abort, KeyboardInterrupt):
        _complain("interrupted")
        return 130
    except BrokenPipeError:  # `engine … | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def exit_code(error: EngineError) -> int:
    """2 where nothing was started or an option is wrong, 1 where a run failed."""
    not_started = isinstance(error, (StartupError, ModelNotFoundError))
    return 2 if not_started or (error.param or "").startswith("-") else 1


def build_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command line's parser, in which only the command that these arguments call is imported."""
    # No rich markup: help is as plain as our tables, and importing rich takes longer than most commands.
    look: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False, "add_completion": False}
    # typer loads pydantic to read a --help option even where it is not given, so there is one only where it is.
    names = [name for name in ("--help", "-h") if name in arguments]
    root = typer.Typer(
        help="A small inference engine on which every architecture is a plugin.",
        context_settings={"help_option_names": names},
        **look,
    )
    root.callback(invoke_without_command=True)(_root)
    groups: dict[str, typer.Typer] = {}
    for name, help_ in GROUPS.items():
        groups[name] = typer.Typer(help=help_, **look)
        groups[name].callback(invoke_without_command=True)(_group)
        root.add_typer(groups[name], name=name)
    for name, command in COMMANDS.items():
        *group, own = words = name.split()
        function = _load(command.target) if list(arguments[: len(words)]) == words else _unused
        (groups[group[0]] if group else root).command(own, help=command.help)(function)
    return root


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(f"engine {__version__}")
        raise typer.Exit()
    _group(context)


def _group(context: typer.Context) -> None:
    """Without a command, say which there are."""
    if context.invoked_subcommand is None:
        _complain(context.get_help())
        raise typer.Exit(2)


def _unused() -> None:
    """Stands in the help for a command that is not the one called."""


def _load(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(f".{module}", __name__), name)
    return function


def _make_output_safe() -> None:
    """Never fail because a terminal cannot show a character."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
