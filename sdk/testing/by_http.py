"""What is asked by HTTP, with OpenAI's client, and how an answer is compared with that of the engine in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .law import Broken, NotApplicable
from .needles import TOKENS, unlike
from .runtime import Completion

if TYPE_CHECKING:
    from .subject import Subject

ELSEWHERE = (
    "what works in one process and not over HTTP: prompts are processed in a process of their own, and items are sent from one "
    "to the other: tensors, arrays, numbers, texts and lists of them; nothing comes by a module's globals or by hand"
)
PATIENCE = 300.0
"""Seconds for an answer: on a machine that is new to it, a server compiles its kernels at the first one."""
GREEDY: Mapping[str, Any] = {"max_tokens": TOKENS, "temperature": 0, "extra_body": {"ignore_eos": True}}


def by_http(check: Callable[[Subject], str]) -> Callable[[Subject], str]:
    """A check that tells what a server answers in the place of what was asked for, or what it wrote where it does not answer."""

    def checked(subject: Subject) -> str:
        try:
            import openai
        except ImportError as error:
            raise NotApplicable("the client is not installed: pip install openai") from error
        try:
            return check(subject)
        except openai.APIStatusError as error:
            what = f"{error.status_code} ({error.code}): {error.message}"
            raise Broken(what, smallest=subject.trying, cause=ELSEWHERE) from error
        except openai.APIConnectionError as error:
            state = "does not answer" if subject.server.alive else "has ended"
            log = f"the end of its log:\n{subject.server.log}"
            raise Broken(
                f"the server {state} ({error.__cause__ or error})", smallest=subject.trying, cause=log
            ) from error

    return checked


def client_of(subject: Subject) -> Any:
    """OpenAI's client of the subject's server."""
    import openai

    return openai.OpenAI(base_url=f"{subject.server.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)


def ask(subject: Subject, messages: Sequence[Mapping[str, Any]], what: str) -> None:
    """Ask, whole and streamed, and compare with the engine in this process."""
    subject.trying = f"POST /v1/chat/completions, {what}"
    expected = subject.opened.chat(messages, TOKENS)
    given = {"model": subject.server.model, "messages": list(messages), "logprobs": True, **GREEDY}
    create: Callable[..., Any] = client_of(subject).chat.completions.create
    choice = create(**given).choices[0]
    hold(subject, choice.message.content, [entry.logprob for entry in choice.logprobs.content], expected)
    parts = [chunk.choices[0].delta.content or "" for chunk in create(**given, stream=True) if chunk.choices]
    hold_stream(subject, parts, expected.text)


def hear(subject: Subject, clip: bytes, what: str) -> None:
    """Have a clip transcribed, whole and streamed, and compare with the engine in this process."""
    subject.trying = f"POST /v1/audio/transcriptions, {what}"
    expected = subject.opened.transcribe(clip)
    create: Callable[..., Any] = client_of(subject).audio.transcriptions.create
    given = {"model": subject.server.model, "file": ("clip.wav", clip), "temperature": 0}
    made = create(**given).text
    if made != expected:
        raise Broken(f"{made!r} where core.LLM writes {expected!r}", smallest=subject.trying, cause=ELSEWHERE)
    events = create(**given, stream=True)
    hold_stream(subject, [event.delta for event in events if event.type == "transcript.text.delta"], expected)


def hold(subject: Subject, text: str, logprobs: Sequence[float], expected: Completion) -> None:
    """Compare a whole answer with that of the engine in this process."""
    tokens = expected.token_ids[: len(logprobs)]
    what = "" if text == expected.text else f"{text!r} where core.LLM says {expected.text!r}"
    what = what or unlike(Completion(tokens, tuple(logprobs)), expected)
    if what or len(tokens) != len(expected.token_ids):
        raise Broken(what or f"{len(tokens)} tokens of {TOKENS}", smallest=subject.trying, cause=ELSEWHERE)


def hold_stream(subject: Subject, parts: Sequence[str], expected: str) -> None:
    """Compare a streamed answer with that of the engine in this process."""
    if "".join(parts) != expected:
        raise Broken(
            f"the stream says {''.join(parts)!r} where core.LLM says {expected!r}",
            smallest=f"{subject.trying}, stream=True",
            cause="a tokenizer whose decoding of a token depends on what comes later, or " + ELSEWHERE,
        )
