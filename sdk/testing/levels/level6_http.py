"""Level 6: the same answers through HTTP, from a server in processes of its own, by the client that people use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..by_http import ELSEWHERE, GREEDY, ask, by_http, client_of, hear, hold, hold_stream
from ..content_parts import SENT, content_part, file_of, part_of_bytes
from ..law import Broken, NotApplicable, law
from ..needles import TOKENS, TOLERANCE, needles
from ..samples import items_of

if TYPE_CHECKING:
    from ..subject import Subject

NO_MEDIUM = b"\x00" * 99
QUESTION = "What is shown?"
CONVERSATION = (
    {"role": "user", "content": "Hello!"},
    {"role": "assistant", "content": "Good day."},
    {"role": "user", "content": QUESTION},
)


@law(
    "L6.serves",
    "engine serve starts with the checkpoint, and tells its tasks and modalities.",
    needs=("L1.weights", "L1.capabilities"),
)
@by_http
def serves(subject: Subject) -> str:
    subject.require("model")
    subject.trying = f"engine serve {subject.folder}"
    (served,) = (entry.model_dump() for entry in client_of(subject).models.list().data)
    tasks = {*subject.capabilities.tasks, *(["transcription"] if subject.plugin.has("transcription") else [])}
    if not tasks <= set(served["tasks"]):
        raise Broken(
            f"the server offers {served['tasks']}, and the plugin says {sorted(tasks)}",
            smallest="GET /v1/models",
            cause="the capabilities, or the record's transcription",
        )
    modalities = {"text", *(modality for modality, limit in _limits(subject).items() if limit != 0)}
    if set(served["modalities"]) != modalities:
        raise Broken(
            f"the server takes {served['modalities']}, and get_supported_mm_limits says {sorted(modalities)}",
            smallest="GET /v1/models",
            cause="get_supported_mm_limits depends on something that only this process has",
        )
    return f"tasks {', '.join(served['tasks'])}; modalities {', '.join(served['modalities'])}"


def _limits(subject: Subject) -> dict[str, int | None]:
    return subject.limits if subject.plugin.has("processor") else {}


def _generates(subject: Subject) -> None:
    if "generate" not in subject.capabilities.tasks:
        raise NotApplicable(f"its tasks are {', '.join(subject.capabilities.tasks)}: it is offered for no answers")


@law("L6.completions", "/v1/completions answers as core.LLM does, whole and streamed.", needs=("L6.serves",))
@by_http
def completions(subject: Subject) -> str:
    _generates(subject)
    if subject.encoder_modality is not None:
        raise NotApplicable(f"its encoder takes {subject.encoder_modality}, which a prompt of text does not bring")
    asked = [needle for needle in needles(subject) if not isinstance(needle.make(), Mapping)]
    client = client_of(subject)
    for needle in asked:
        subject.trying = f"POST /v1/completions, {needle.name}"
        expected = subject.opened.generate([needle.make()], TOKENS)[0]
        given = {"model": subject.server.model, "prompt": needle.make(), "logprobs": 0, **GREEDY}
        choice = client.completions.create(**given).choices[0]
        hold(subject, choice.text, choice.logprobs.token_logprobs, expected)
        parts = [chunk.choices[0].text for chunk in client.completions.create(**given, stream=True)]
        hold_stream(subject, parts, expected.text)
    return f"{len(asked)} prompts, whole and streamed"


@law("L6.chat", "/v1/chat/completions answers as core.LLM does, whole and streamed.", needs=("L6.serves",))
@by_http
def chat(subject: Subject) -> str:
    _generates(subject)
    _has_template(subject)
    if subject.encoder_modality is not None:
        raise NotApplicable(f"its encoder takes {subject.encoder_modality}: a conversation of text says nothing to it")
    ask(subject, CONVERSATION, "a conversation of three messages")
    return "a conversation of three messages, whole and streamed"


@law("L6.media", "Media in data: URIs are answered as core.LLM does.", needs=("L6.serves",))
@by_http
def media(subject: Subject) -> str:
    subject.require("media")
    _generates(subject)
    _has_template(subject)
    said = []
    for name, messages in _with_media(subject):
        ask(subject, messages, f"a message with {name}")
        said.append(name)
    if not said:
        raise NotApplicable("no item of a form that clients can send is allowed")
    return f"{', '.join(said)}, whole and streamed"


def _with_media(subject: Subject) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Messages with one item, and with two where as many are allowed."""
    for modality in sorted(SENT & subject.limits.keys()):
        limit = subject.limits[modality]
        for which in ((0,), (1, 2)):
            if (limit is None or len(which) <= limit) and (len(which) == 1 or subject.encoder_modality is None):
                parts = [content_part(modality, item) for item in items_of(subject, modality, which)]
                content = [*parts, {"type": "text", "text": QUESTION}]
                yield f"{len(which)} {modality}", [{"role": "user", "content": content}]


@law(
    "L6.refuses",
    "A request that is at fault gets a 400, and the server answers the next one as before.",
    needs=("L6.serves",),
)
@by_http
def refuses(subject: Subject) -> str:
    import openai

    transcribes = subject.plugin.has("transcription")
    if not transcribes:
        _generates(subject)
        _has_template(subject)
    chats = "generate" in subject.capabilities.tasks and subject.opened.has_chat_template
    faults = {**(_faulty_messages(subject) if chats else {}), **(_faulty_clip(subject) if transcribes else {})}
    for name, request in faults.items():
        subject.trying = name
        try:
            request()
        except openai.APIStatusError as error:
            if error.status_code == 400:
                continue
            found = f"{error.status_code} ({error.code})"
        else:
            found = "an answer"
        raise Broken(
            f"{name} gets {found}, not a 400",
            smallest=name,
            cause="the processor raises something else than MediaError, or InvalidRequestError, for what a client did wrong",
        )
    if chats and subject.encoder_modality is None:
        ask(subject, CONVERSATION, "a conversation after faulty ones")
    if transcribes:
        hear(subject, _clip(subject, 0), "a clip after a faulty one")
    if not subject.server.alive:
        raise Broken("the server has ended", smallest=", ".join(faults), cause=subject.server.log)
    return ", ".join(faults)


def _faulty_messages(subject: Subject) -> dict[str, Callable[[], object]]:
    """Conversations with an item that is none, that ends early, or that the model does not take."""
    limits = _limits(subject)
    faults: dict[str, dict[str, Any]] = {}
    for modality in sorted(SENT & limits.keys()):
        if limits[modality] == 0:
            continue
        sound = file_of(modality, items_of(subject, modality, (0,))[0])
        faults[f"bytes that are no {modality}"] = part_of_bytes(modality, NO_MEDIUM)
        if modality != "audio":  # a clip that ends early is a shorter clip
            faults[f"half of the bytes of an {modality}"] = part_of_bytes(modality, sound[: len(sound) // 2])
    if "image" not in limits:
        faults["a picture, which it does not take"] = part_of_bytes("image", b"\x89PNG\r\n\x1a\n")
    create = partial(client_of(subject).chat.completions.create, model=subject.server.model, **GREEDY)
    return {name: partial(create, messages=[{"role": "user", "content": [part]}]) for name, part in faults.items()}


def _faulty_clip(subject: Subject) -> dict[str, Callable[[], object]]:
    """A file to transcribe that is none."""
    create = client_of(subject).audio.transcriptions.create
    request = partial(create, model=subject.server.model, file=("clip.wav", NO_MEDIUM))
    return {"bytes that are no clip, to transcribe": request}


@law(
    "L6.transcription",
    "/v1/audio/transcriptions writes what core.LLM does, whole and streamed.",
    needs=("L6.serves",),
)
@by_http
def transcription(subject: Subject) -> str:
    if not subject.plugin.has("transcription"):
        raise NotApplicable(f"{subject.architecture} does not transcribe")
    for which in (0, 1):
        clip = _clip(subject, which)
        hear(subject, clip, f"a clip of {len(clip)} bytes")
    return "2 clips, whole and streamed"


def _clip(subject: Subject, which: int) -> bytes:
    return file_of("audio", items_of(subject, "audio", (which,))[0])


@law("L6.embeddings", "/v1/embeddings gives the vectors of core.LLM.", needs=("L6.serves",))
@by_http
def embeddings(subject: Subject) -> str:
    import torch

    if "embed" not in subject.capabilities.tasks:
        raise NotApplicable(f"{subject.architecture} makes no embeddings")
    asked = ["a", QUESTION, "A longer text, of which a vector is made as well."]
    subject.trying = f"POST /v1/embeddings, {len(asked)} texts"
    made = client_of(subject).embeddings.create(model=subject.server.model, input=asked).data
    for text, found, expected in zip(asked, made, subject.opened.pool(asked, "embed"), strict=True):
        apart = float((torch.tensor(found.embedding) - expected).abs().max())
        if not apart <= TOLERANCE:
            raise Broken(f"a vector differs by {apart:.2g}", smallest=f"POST /v1/embeddings, {text!r}", cause=ELSEWHERE)
    return f"{len(asked)} texts"


def _has_template(subject: Subject) -> None:
    if not subject.opened.has_chat_template:
        raise NotApplicable("the tiny checkpoint has no chat template")


LAWS = (serves, completions, chat, media, refuses, transcription, embeddings)
