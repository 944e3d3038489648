"""`LLM.transcribe`: what a model says of clips of any length, and what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from core import LLM, SamplingParams
from core.errors import (
    ContextLengthError,
    InvalidConfigError,
    InvalidRequestError,
    MediaDecodeError,
    MediaTooLargeError,
    PluginContractError,
    PluginRuntimeError,
)
from core.transcription.split import split_audio
from sdk import registry
from sdk.transcription import DecodingFallback, SpeechToTextConfig, SupportsTranscription

from .conftest import Open
from .fake import ARCHITECTURE, HUM, ID, RATE, WORDS, Listening, Speech, SpeechModel, heard, register, said
from .sounds import written


def random_words(seed: int, count: int) -> list[str]:
    return np.random.default_rng(seed).choice(WORDS[:10], count).tolist()


# ---- what comes back -----------------------------------------------------------------------------------------------


def test_a_clip_becomes_its_text(open_llm: Open, tmp_path: Path) -> None:
    llm, wave = open_llm(Speech), said("one", "seven", "three")
    made = llm.transcribe((wave, RATE))
    assert (made.text, made.language, made.task, made.words, made.error) == (
        "one seven three", "en", "transcribe", None, None)  # fmt: skip
    assert made.duration == pytest.approx(0.9)
    assert made.audio_tokens == 9
    data = written(wave, RATE, subtype="FLOAT")
    (tmp_path / "clip.wav").write_bytes(data)
    forms = [
        data,
        tmp_path / "clip.wav",
        str(tmp_path / "clip.wav"),
        (np.stack([wave, wave]), RATE),
        (wave.tolist(), RATE),
    ]
    assert [t.text for t in llm.transcribe(forms)] == [made.text] * len(forms)
    assert llm.transcribe([]) == []


def test_without_time_stamps_a_segment_is_a_piece_of_the_clip(open_llm: Open) -> None:
    words = random_words(1, 25)
    wave = said(*words)
    made = open_llm(Speech).transcribe((wave, RATE))
    chunks = split_audio(wave, Speech.get_speech_to_text_config(None, "transcribe"))
    assert len(chunks) > 2
    assert made.text == " ".join(words)
    assert " ".join(s.text for s in made.segments) == made.text
    assert [(s.id, s.start, s.end, s.seek) for s in made.segments] == [
        (i, c.start / RATE, pytest.approx(c.stop / RATE), round(c.start / RATE * 100)) for i, c in enumerate(chunks)
    ]
    assert [token for s in made.segments for token in s.tokens] == [ID[word] for word in words]
    assert all(-1 < s.avg_logprob < 0 and s.compression_ratio > 0 and s.temperature == 0 for s in made.segments)


def test_ten_minutes_in_pieces_are_the_pieces_alone(open_llm: Open) -> None:
    words = random_words(2, 2000)
    wave = said(*words)
    llm = open_llm(Speech)
    whole = llm.transcribe((wave, RATE))
    assert whole.duration == pytest.approx(600)
    assert whole.text.split() == words
    chunks = split_audio(wave, Speech.get_speech_to_text_config(None, "transcribe"))
    alone = [llm.transcribe((wave[c.start : c.stop], RATE)).text for c in chunks[::20]]
    assert [s.text for s in whole.segments][::20] == alone
    assert len(whole.segments) == len(chunks)


def test_a_model_that_cuts_by_itself_gets_the_clip_whole(open_llm: Open) -> None:
    lengths = []

    class Whole(Speech):
        @classmethod
        def get_speech_to_text_config(cls, model_config: Any, task_type: Any) -> SpeechToTextConfig:
            return SpeechToTextConfig(sample_rate=RATE, max_audio_clip_s=3, min_energy_split_window_size=None)

        @classmethod
        def get_generation_prompt(cls, params: Any) -> Any:
            lengths.append(len(params.audio))
            return super().get_generation_prompt(params)

    words = random_words(3, 20)
    assert open_llm(Whole).transcribe((said(*words), RATE)).text == " ".join(words)
    assert lengths == [6000]


@pytest.mark.parametrize("timestamps", ["segment", "word"])
def test_times_are_those_of_the_whole_clip(open_llm: Open, timestamps: Any) -> None:
    words = random_words(4, 40)
    wave = said(*words, pause=0.13)
    made = open_llm(Listening).transcribe((wave, RATE), timestamps=timestamps)
    expected = [(pytest.approx(start), pytest.approx(end)) for _, start, end in heard(wave)]
    assert [(s.start, s.end) for s in made.segments] == expected
    assert [s.text for s in made.segments] == [f" {word}" for word in words]
    assert made.text == " ".join(words)
    assert [s.id for s in made.segments] == list(range(40))
    if timestamps == "segment":
        assert made.words is None
    else:
        assert made.words is not None
        assert [(w.word, w.start, w.end) for w in made.words] == [(w, *t) for w, t in zip(words, expected)]


def test_times_outside_their_piece_are_brought_into_it(open_llm: Open) -> None:
    class Wild(Listening):
        @classmethod
        def parse_segments(cls, output: Any, params: Any) -> Any:
            real = super().parse_segments(output, params)
            return [type(s)(s.start - 5, s.end + 500, s.text) for s in real]

    wave = said(*random_words(5, 25))
    made = open_llm(Wild).transcribe((wave, RATE), timestamps="segment")
    times = [(s.start, s.end) for s in made.segments]
    assert all(0 <= start <= end <= 7.5 for start, end in times)
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("wave", [np.zeros(2000), np.zeros(100), np.zeros(1), np.zeros(9000)])
def test_R040_where_nobody_speaks_the_text_is_empty(open_llm: Open, wave: Any) -> None:
    for plugin, timestamps in ((Speech, None), (Listening, "word")):
        made = open_llm(plugin).transcribe((wave, RATE), timestamps=timestamps)
        assert (made.text, made.segments) == ("", ())
        assert made.error is None


def test_what_the_plugin_changes_is_what_is_read(open_llm: Open) -> None:
    class Loud(Speech):
        @classmethod
        def post_process_output(cls, text: str) -> str:
            return text.upper()

    words = random_words(6, 15)
    llm = open_llm(Loud)
    assert llm.transcribe((said(*words), RATE)).text == " ".join(words).upper()
    assert "".join(d.text for d in llm.transcribe((said(*words), RATE), stream=True)) == " ".join(words).upper()


def test_a_plugin_says_how_its_text_is_drawn(open_llm: Open) -> None:
    class Short(Speech):
        @classmethod
        def get_sampling_overrides(cls, params: Any) -> Any:
            return {"max_tokens": 2}

    assert open_llm(Short).transcribe((said("one", "two", "three"), RATE)).text == "one two"


# ---- what the plugin is told ---------------------------------------------------------------------------------------


class Told(Listening):
    """Notes what it is asked."""

    params: ClassVar[list[Any]] = []

    @classmethod
    def get_generation_prompt(cls, params: Any) -> Any:
        cls.params.append(params)
        return super().get_generation_prompt(params)


def test_the_plugin_is_told_what_the_caller_wants(open_llm: Open, folder: Path) -> None:
    Told.params = []
    llm = open_llm(Told)
    made = llm.transcribe(
        (said("one"), RATE),
        language="German",
        task="translate",
        to_language="en",
        prompt="two three",
        timestamps="word",
    )
    (params,) = Told.params
    assert (params.language, params.task_type, params.to_language, params.request_prompt, params.timestamps) == (
        "de", "translate", "en", "two three", "word")  # fmt: skip
    assert params.audio.dtype == np.float32
    assert params.model_config.model == str(folder)
    assert params.model_config.hf_config.hidden_size == 32
    assert params.model_config.tokenizer.convert_tokens_to_ids("one") == ID["one"]
    assert params.model_config.max_model_len == llm.plan.max_model_len
    assert params.model_config.get_hf_processor().feature_extractor.sampling_rate == RATE
    assert (made.language, made.task) == ("de", "translate")


def test_the_older_guides_keywords_serve(open_llm: Open) -> None:
    class Older(Speech):
        @classmethod
        def get_generation_prompt(  # type: ignore[override]
            cls, audio: Any, stt_config: Any, model_config: Any, language: str | None, task_type: Any, request_prompt: str,
            to_language: str | None,
        ) -> Any:  # fmt: skip
            ids = [ID["<audio>"], *[ID["<pad>"]] * 3, ID[f"<{language}>"], ID[f"<{task_type}>"], ID["<start>"]]
            return {"prompt_token_ids": ids, "multi_modal_data": {"audio": (audio, stt_config.sample_rate)}}

        @classmethod
        def validate_language(cls, language: str | None) -> str | None:
            if language not in (None, "en"):
                raise ValueError("only English, please")
            return "en"

    llm = open_llm(Older)
    assert llm.transcribe((said("nine"), RATE)).text == "nine"
    with pytest.raises(InvalidRequestError, match="only English, please") as caught:
        llm.transcribe((said("nine"), RATE), language="fr")
    assert caught.value.code == "unsupported_language"


@pytest.mark.parametrize(("first", "language"), [("one", "de"), ("two", "en"), ("seven", "de")])
def test_the_language_is_detected_from_the_first_piece(open_llm: Open, first: str, language: str) -> None:
    Told.params = []
    made = open_llm(Told).transcribe((said(first, *random_words(7, 20)), RATE))
    assert made.language == language
    assert len(Told.params) > 1
    assert {params.language for params in Told.params} == {language}


def test_a_language_that_is_given_is_not_detected(open_llm: Open) -> None:
    assert open_llm(Listening).transcribe((said("one"), RATE), language="EN").language == "en"


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "param"),
    [
        ({"language": "klingon"}, "unsupported_language", "language"),
        ({"task": "sing"}, "unsupported_task", "task"),
        ({"to_language": "de"}, "invalid_request", "to_language"),
        ({"task": "translate", "to_language": "xx"}, "unsupported_language", "to_language"),
        ({"timestamps": "segment"}, "unsupported_parameter", "timestamps"),
        ({"timestamps": "word"}, "unsupported_parameter", "timestamps"),
        ({"timestamps": "letter"}, "invalid_request", "timestamps"),
        ({"timestamps": ["word"]}, "invalid_request", "timestamps"),
        ({"prompt": 5}, "invalid_request", "prompt"),
        ({"prompt": "one <start> two"}, "reserved_token", "prompt"),
        ({"prompt": "\ud800"}, "invalid_request", "prompt"),
        ({"temperature": -1}, "invalid_request", "temperature"),
        ({"temperature": "hot"}, "invalid_request", "temperature"),
        ({"temperature": "0"}, "invalid_request", "temperature"),
        ({"temperature": None}, "invalid_request", "temperature"),
        ({"on_error": "ignore"}, "invalid_request", "on_error"),
    ],
)
def test_R041_what_the_model_does_not_do_is_an_error(open_llm: Open, arguments: Any, code: str, param: str) -> None:
    llm = open_llm(Speech)
    for stream in (False, True):
        with pytest.raises(InvalidRequestError) as caught:
            list(llm.transcribe((said("one"), RATE), stream=stream, **arguments) or [None])
        assert caught.value.code == code
        assert (caught.value.param or "").endswith(param)
        assert len(str(caught.value)) < 300


def test_a_prompt_that_is_longer_than_the_model_reads(open_llm: Open) -> None:
    with pytest.raises(ContextLengthError):
        open_llm(Speech).transcribe((said("one"), RATE), prompt="one " * 10_000)


@pytest.mark.parametrize("audio", [b"", b"no sound", "nowhere.wav", np.zeros(100), {"audio": 1}, 5, None])
def test_R038_what_is_no_clip(open_llm: Open, audio: Any) -> None:
    llm = open_llm(Speech)
    with pytest.raises((MediaDecodeError, InvalidRequestError)):
        llm.transcribe(audio)
    assert llm.transcribe((said("one"), RATE)).text == "one"


def test_R040_a_clip_over_the_limit(open_llm: Open) -> None:
    llm = open_llm(Speech, max_audio_seconds=2)
    with pytest.raises(MediaTooLargeError, match="raise max_audio_seconds") as caught:
        llm.transcribe((np.zeros(2001), RATE))
    assert caught.value.code == "audio_too_long"
    assert llm.transcribe((np.zeros(2000), RATE)).text == ""


def test_one_bad_clip_among_others(open_llm: Open) -> None:
    llm = open_llm(Speech)
    clips = [(said("one"), RATE), b"no sound", (said("two"), RATE), "nowhere.wav"]
    made = llm.transcribe(clips, on_error="return")
    assert [t.text for t in made] == ["one", "", "two", ""]
    assert [type(t.error) for t in made] == [type(None), MediaDecodeError, type(None), MediaDecodeError]
    with pytest.raises(MediaDecodeError, match="clip 1: "):
        llm.transcribe(clips)


def test_a_model_that_does_not_transcribe_says_so(open_llm: Open) -> None:
    llm = open_llm(None, tasks=("generate",))
    with pytest.raises(
        InvalidRequestError, match=f"{ARCHITECTURE} .*does not transcribe; it offers: generate"
    ) as caught:
        llm.transcribe((said("one"), RATE))
    assert caught.value.code == "unsupported_task"


def test_a_model_for_transcription_alone_is_offered_for_nothing_else(open_llm: Open) -> None:
    llm = open_llm(Speech, tasks=("generate",))
    assert llm.engine.capabilities.tasks == ("transcription",)
    with pytest.raises(InvalidRequestError, match="for transcription alone") as caught:
        llm.chat([{"role": "user", "content": "hello"}])
    assert caught.value.code == "unsupported_task"


def test_a_model_that_implements_it_is_offered_without_another_word(open_llm: Open, folder: Path) -> None:
    class Both(Speech):
        supports_transcription_only = False

    assert open_llm(Both, tasks=("generate",)).engine.capabilities.tasks == ("generate", "transcription")

    class Speaking(SpeechModel, SupportsTranscription):
        supported_languages = Speech.supported_languages
        get_speech_to_text_config = classmethod(Speech.get_speech_to_text_config.__func__)  # type: ignore[attr-defined]
        get_generation_prompt = classmethod(Speech.get_generation_prompt.__func__)  # type: ignore[attr-defined]

    open_llm(Both)  # the fixture forgets the registration at the end
    registry.unregister(ARCHITECTURE)
    register(None, model=Speaking)
    with LLM(str(folder), dtype="float32", disable_progress=True) as speaking:
        assert speaking.engine.capabilities.tasks == ("transcription",)
        assert speaking.transcribe((said("four"), RATE), language="en").text == "four"


# ---- faults of a plugin --------------------------------------------------------------------------------------------


def broken(name: str, value: Any) -> Any:
    """A plugin one of whose hooks does this."""

    def hook(cls: Any, *arguments: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return type("Broken", (Listening,), {name: classmethod(hook)})


@pytest.mark.parametrize("value", [RuntimeError("oh at 0x7f0012345678"), 5.5])
@pytest.mark.parametrize(
    "name",
    ["get_speech_to_text_config", "get_generation_prompt", "validate_language", "get_language_detection_prompt",
     "get_language_token_ids", "get_sampling_overrides", "post_process_output", "parse_segments", "get_num_audio_tokens"],
)  # fmt: skip
def test_a_hook_that_fails_is_named_and_others_are_served(open_llm: Open, name: str, value: Any) -> None:
    arguments: dict[str, Any] = {}
    if name == "validate_language":
        arguments = {"language": "en"}
    if name == "parse_segments":
        arguments = {"timestamps": "segment"}
    llm = open_llm(broken(name, value))
    with pytest.raises(PluginRuntimeError, match=name) as caught:
        llm.transcribe((said("one"), RATE), **arguments)
    assert "0x7f" not in str(caught.value)
    prompt = {"prompt_token_ids": [ID["<audio>"], *[0] * 6], "multi_modal_data": {"audio": (said("two"), RATE)}}
    assert llm.generate(prompt, SamplingParams(temperature=0))[0].outputs[0].text == "two"


@pytest.mark.parametrize("segments", [[5], [None], "ab"])
def test_segments_that_are_none(open_llm: Open, segments: Any) -> None:
    with pytest.raises(PluginRuntimeError, match="parse_segments"):
        open_llm(broken("parse_segments", segments)).transcribe((said("one"), RATE), timestamps="segment")


def test_overrides_that_are_no_sampling_parameters_are_the_plugins_fault(open_llm: Open) -> None:
    for overrides in ({"beams": 5}, {"max_tokens": -1}, {"temperature": -1}):
        with pytest.raises(PluginRuntimeError, match="get_sampling_overrides"):
            open_llm(broken("get_sampling_overrides", overrides)).transcribe((said("one"), RATE))


def test_a_class_that_implements_nothing_is_refused_at_start(open_llm: Open) -> None:
    class Nothing:
        pass

    with pytest.raises(PluginContractError, match=r"does not derive from sdk\.SupportsTranscription"):
        open_llm(Nothing)
    with pytest.raises(InvalidConfigError, match="offers no task; this engine can do generate, transcription"):
        open_llm(None)


# ---- streaming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("plugin", "timestamps"), [(Speech, None), (Listening, None), (Listening, "segment")])
def test_what_is_streamed_end_to_end_is_the_text(open_llm: Open, plugin: Any, timestamps: Any) -> None:
    words = random_words(8, 33)
    llm = open_llm(plugin)
    clip = (said(*words), RATE)
    deltas = list(llm.transcribe(clip, stream=True, timestamps=timestamps))
    assert "".join(d.text for d in deltas) == " ".join(words)
    assert [d.done for d in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1].done == llm.transcribe(clip, timestamps=timestamps)
    assert len(deltas) > (10 if timestamps is None else 2)


def test_several_clips_are_streamed_one_after_another(open_llm: Open) -> None:
    clips = [(said(*random_words(n, 12)), RATE) for n in range(3)]
    llm = open_llm(Speech)
    texts = ["", "", ""]
    order = []
    for delta in llm.transcribe(clips, stream=True):
        texts[delta.index] += delta.text
        order.append(delta.index)
    assert texts == [t.text for t in llm.transcribe(clips)]
    assert order == sorted(order)


def test_a_stream_goes_on_after_a_bad_clip_where_failures_are_returned(open_llm: Open) -> None:
    clips = [(said("one"), RATE), b"no sound", (said("two"), RATE), "nowhere.wav"]
    llm = open_llm(Speech)
    deltas = list(llm.transcribe(clips, stream=True, on_error="return"))
    assert [d.done.text for d in deltas if d.done] == ["one", "", "two", ""]
    assert [d.index for d in deltas if d.done and d.done.error] == [1, 3]
    with pytest.raises(MediaDecodeError, match="clip 1: ") as caught:
        list(llm.transcribe(clips, stream=True))
    assert [t.text for t in caught.value.partial_results] == ["one"]


def test_leaving_a_stream_early_leaves_nothing_behind(open_llm: Open) -> None:
    llm = open_llm(Speech)
    stream = llm.transcribe((said(*random_words(9, 30)), RATE), stream=True)
    next(stream)
    stream.close()
    assert not llm.engine.scheduler.has_work


# ---- texts that are not believed -----------------------------------------------------------------------------------


def doubting(**rule: Any) -> Any:
    """A plugin that tries again by this rule."""

    class Doubting(Listening):
        @classmethod
        def get_speech_to_text_config(cls, model_config: Any, task_type: Any) -> SpeechToTextConfig:
            made = Speech.get_speech_to_text_config(model_config, task_type)
            return SpeechToTextConfig(made.sample_rate, 9, 0.5, 50, DecodingFallback(**rule))

        @classmethod
        def get_no_speech_token_id(cls, model_config: Any) -> int | None:
            return ID["<nobody>"]

    return Doubting


REPEATED = said(*["one"] * 25)


def test_a_text_that_repeats_itself_is_drawn_anew(open_llm: Open) -> None:
    llm = open_llm(doubting(compression_ratio=2.4, avg_logprob=None, no_speech=None))
    clip = np.concatenate([said(*random_words(10, 25)), np.zeros(1400, dtype=np.float32), REPEATED])
    made = llm.transcribe((clip, RATE))
    believed, again = made.segments
    assert (believed.temperature, again.temperature > 0) == (0.0, True)
    assert believed.text.split() == random_words(10, 25)
    assert again.compression_ratio <= 2.4 or again.temperature == 1.0
    assert again.text != " ".join(["one"] * 25)


def test_what_is_drawn_anew_is_the_same_every_time_unless_a_temperature_was_asked_for(open_llm: Open) -> None:
    llm = open_llm(doubting(temperatures=(5.0,), compression_ratio=2.4, avg_logprob=None, no_speech=None))
    drawn = {llm.transcribe((REPEATED, RATE)).text for _ in range(3)}
    assert len(drawn) == 1
    assert drawn != {" ".join(["one"] * 25)}
    assert len({llm.transcribe((REPEATED, RATE), temperature=5.0).text for _ in range(3)}) > 1


def test_the_last_temperature_is_taken_whatever_it_gives(open_llm: Open) -> None:
    llm = open_llm(doubting(temperatures=(0.01, 0.02), compression_ratio=2.4, avg_logprob=None, no_speech=None))
    made = llm.transcribe((REPEATED, RATE))
    assert made.text == " ".join(["one"] * 25)
    assert {s.temperature for s in made.segments} == {0.02}
    assert llm.transcribe((REPEATED, RATE), temperature=0.015).segments[0].temperature == 0.02
    assert llm.transcribe((REPEATED, RATE), temperature=0.03).segments[0].temperature == 0.03


def test_a_guess_is_drawn_anew(open_llm: Open) -> None:
    llm = open_llm(doubting(temperatures=(0.01,), compression_ratio=None, avg_logprob=-0.2, no_speech=None))
    made = llm.transcribe((said("hum", "hum"), RATE))
    assert made.segments[0].temperature == 0.01
    assert made.segments[0].avg_logprob < -0.2
    assert llm.transcribe((said("two", "three"), RATE)).segments[0].temperature == 0.0


def test_where_nobody_speaks_a_guess_is_dropped(open_llm: Open) -> None:
    llm = open_llm(doubting(temperatures=(), compression_ratio=None, avg_logprob=-0.2, no_speech=0.2))
    assert HUM == 11
    made = llm.transcribe((said("hum", "hum"), RATE))
    assert (made.text, made.segments) == ("", ())
    spoken = llm.transcribe((said("two", "hum", "hum"), RATE))
    assert spoken.text == "two hum hum"
    assert 0 < spoken.segments[0].no_speech_prob < 0.1
    kept = open_llm(doubting(compression_ratio=None, avg_logprob=-3, no_speech=0.2)).transcribe((said("hum"), RATE))
    assert kept.text == "hum"
    assert kept.segments[0].no_speech_prob > 0.2


def test_what_may_be_drawn_anew_is_not_shown_before_it_stays(open_llm: Open) -> None:
    llm = open_llm(doubting(temperatures=(0.01, 0.02), compression_ratio=2.4, avg_logprob=None, no_speech=None))
    clip = np.concatenate([said(*random_words(11, 27)), REPEATED, said(*random_words(12, 10))])
    deltas = list(llm.transcribe((clip, RATE), stream=True))
    whole = deltas[-1].done
    assert whole is not None
    assert "".join(d.text for d in deltas) == whole.text == llm.transcribe((clip, RATE)).text
    assert any(d.text for d in deltas[:-1])


# ---- clips in other calls ------------------------------------------------------------------------------------------


def test_generate_takes_clips_of_any_rate_and_form(open_llm: Open, tmp_path: Path) -> None:
    llm = open_llm(Speech, tasks=("generate",))
    wave = said("five", "six")
    high = np.repeat(wave, 8)  # the same, at eight times the rate, as loud in the middle of each word
    (tmp_path / "clip.wav").write_bytes(written(wave, RATE, subtype="FLOAT"))
    for clip in (
        (wave, RATE),
        wave,
        [wave],
        str(tmp_path / "clip.wav"),
        written(wave, RATE, "FLAC"),
        (high * 0, 8 * RATE),
    ):
        prompt = {"prompt_token_ids": [ID["<audio>"], *[0] * 6], "multi_modal_data": {"audio": clip}}
        text = llm.generate(prompt, SamplingParams(temperature=0))[0].outputs[0].text
        assert text == ("" if isinstance(clip, tuple) and clip[1] != RATE else "five six")


@pytest.mark.parametrize("audio", [[np.zeros(9), np.zeros(9)], [(np.zeros(9), RATE)] * 2, [b"", b""]])
def test_more_clips_than_the_model_takes(open_llm: Open, audio: Any) -> None:
    prompt = {"prompt_token_ids": [ID["<audio>"]] * 2, "multi_modal_data": {"audio": audio}}
    with pytest.raises((InvalidRequestError, MediaDecodeError)):
        open_llm(Speech).generate(prompt)


@pytest.mark.parametrize(
    "part",
    [
        lambda data, url: {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        lambda data, url: {"type": "audio_url", "audio_url": {"url": url}},
        lambda data, url: {"type": "audio", "url": url},
        lambda data, url: {"type": "audio", "base64": data},
        lambda data, url: {"type": "audio", "audio": (said("ten", "one"), RATE)},
    ],
)
def test_a_conversation_may_hold_clips(open_llm: Open, part: Any) -> None:
    import base64

    class Chatting(Speech):
        supports_transcription_only = False

    template = (
        "{% for m in messages %}{% for p in m.content %}{% if p.type == 'audio' %}"
        "<audio> <pad> <pad> <pad> <en> <transcribe> <start>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
    )
    llm = open_llm(Chatting, tasks=("generate",), chat_template=template)
    data = base64.b64encode(written(said("ten", "one"), RATE, subtype="FLOAT")).decode()
    content = [part(data, f"data:audio/wav;base64,{data}")]
    made = llm.chat([{"role": "user", "content": content}], SamplingParams(temperature=0))
    assert made[0].outputs[0].text == "ten one"
