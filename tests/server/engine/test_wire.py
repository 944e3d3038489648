"""What crosses between processes arrives as it was sent: tensors, errors, parameters, prompts; and nothing is pickled."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from core.errors import EngineError, InvalidRequestError, PluginContractError, PluginRuntimeError, RequestError
from core.sampling import SamplingParams
from core.server import wire
from core.server.faults import from_fault, to_fault
from core.server.letters import read_params, write_params
from sdk import errors

SERVER = Path(wire.__file__).parent
CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, EngineError)]


class Anything(msgspec.Struct, tag="anything", array_like=True):
    value: Any


def crossed(value: Any) -> Any:
    sender, receiver = wire.Codec(Anything), wire.Codec(Anything)
    frames = sender.encode(Anything(wire.as_it_is(value)))
    return receiver.decode([bytearray(frame) for frame in frames]).value


def test_nothing_is_pickled() -> None:
    found = []
    for file in sorted(SERVER.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{file.name}: {n}" for n in names if n.split(".")[0] in ("pickle", "dill", "marshal", "shelve")]
            if isinstance(node, ast.ImportFrom | ast.Import):
                found += [f"{file.name}: {n}" for n in names if n.split(".")[0] == "multiprocessing"]  # it pickles
            if isinstance(node, ast.Attribute) and node.attr in ("send_pyobj", "recv_pyobj", "loads_pickle"):
                found.append(f"{file.name}: {node.attr}")
    assert found == []


@pytest.mark.parametrize("dtype", [*wire._DTYPES.values()], ids=str)
def test_tensors_of_every_type_and_shape(dtype: torch.dtype) -> None:
    for shape in [(), (0,), (3,), (2, 0, 4), (5, 7), (2, 3, 4)]:
        sent = (torch.randn(shape) * 5).to(dtype)
        found = crossed(sent)
        assert (found.dtype, found.shape) == (dtype, sent.shape)
        assert torch.equal(found, sent)
    view = (torch.randn(6, 8) * 5).to(dtype).t()[1:5, ::2]
    assert torch.equal(crossed(view), view)


def test_other_values_stay_what_they_are() -> None:
    value = {
        "nested": [(1, 2), [3, (4.5, None)], {"a": ("b",)}],
        "array": np.arange(6, dtype=np.int32).reshape(2, 3)[:, ::-1],
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 3), dtype=np.float16),
        "bytes": b"\x00\xff",
        "text": "ö\x00",
        "tensors": (torch.tensor([1]), [torch.tensor(2.5)]),
    }
    found = crossed(value)
    assert found["nested"] == value["nested"]
    for name in ("array", "flags", "empty"):
        assert found[name].dtype == value[name].dtype
        assert np.array_equal(found[name], value[name])
    assert (found["bytes"], found["text"]) == (value["bytes"], value["text"])
    assert isinstance(found["tensors"], tuple)
    assert torch.equal(found["tensors"][1][0], torch.tensor(2.5))


@pytest.mark.parametrize("value", [object(), lambda: 1, np.array([object()])], ids=["object", "function", "objects"])
def test_what_cannot_be_sent_is_an_error_and_no_pickle(value: Any) -> None:
    codec = wire.Codec(Anything)
    with pytest.raises(TypeError, match="cannot be sent"):
        codec.encode(Anything(value))
    assert codec.decode(codec.encode(Anything(1))).value == 1


@pytest.mark.parametrize(
    "frames",
    [[b""], [b"\x93"], [b"\xff" * 40], [msgspec.msgpack.encode(["anything"])], [msgspec.msgpack.encode(["other", 1])]],
)
def test_what_is_no_message_is_refused(frames: list[bytes]) -> None:
    with pytest.raises((msgspec.DecodeError, msgspec.ValidationError)):
        wire.Codec(Anything).decode(frames)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_errors_of_every_class_arrive_as_themselves(kind: type[EngineError]) -> None:
    if issubclass(kind, PluginRuntimeError):
        sent: EngineError = kind("it broke", plugin="p 1.0", hook="forward", request_id="7")
    else:
        sent = kind("it broke", code="a_code", param="a.param")  # type: ignore[call-arg]
    if isinstance(sent, errors.PluginError):
        sent.plugin = "p 1.0"
    found = from_fault(msgspec.msgpack.decode(msgspec.msgpack.encode(to_fault(sent)), type=wire.Fault))
    assert type(found) is kind
    assert str(found) == str(sent)
    assert vars(found) == {**vars(sent), "code": sent.code}
    assert (found.status, found.type) == (sent.status, sent.type)


def test_errors_that_nobody_knows_arrive_as_the_nearest_that_somebody_does() -> None:
    class OfAPlugin(RequestError):
        code = "of_a_plugin"

    found = from_fault(to_fault(OfAPlugin("no")))
    assert (type(found), found.code, str(found)) == (RequestError, "of_a_plugin", "no")
    assert "ValueError" in str(from_fault(to_fault(ValueError("no"))))


def test_causes_cross_too() -> None:
    error = RequestError("above")
    error.__cause__ = PluginContractError("below", plugin="p 1.0")
    cause = from_fault(to_fault(error)).__cause__
    assert isinstance(cause, PluginContractError)
    assert cause.plugin == "p 1.0"


PARAMS = [
    SamplingParams(),
    SamplingParams(n=3, temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, seed=-(2**63), stop=["a", "b"], logprobs=2),
    SamplingParams(logit_bias={1: 2.5, 7: -100}, bad_words=["no"], allowed_token_ids=[1, 2], stop_token_ids=[3]),
    SamplingParams(structured_outputs={"json": {"type": "object"}}),  # type: ignore[arg-type]
    SamplingParams(structured_outputs={"regex": "a+"}),  # type: ignore[arg-type]
    SamplingParams(structured_outputs={"choice": ["(" * 70, "b"]}),  # type: ignore[arg-type]
    SamplingParams(max_tokens=None, presence_penalty=1.5, prompt_logprobs=0, ignore_eos=True, detokenize=False),
]


@pytest.mark.parametrize("params", PARAMS)
def test_parameters_arrive_as_they_are(params: SamplingParams) -> None:
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(write_params(params)), strict=False)
    found = read_params(sent)
    for field in fields(SamplingParams):
        if field.name != "structured_outputs":
            assert getattr(found, field.name) == getattr(params, field.name), field.name
    if params.structured_outputs is not None:
        assert found.structured_outputs is not None
        assert found.structured_outputs.source == params.structured_outputs.source


def test_functions_are_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match=r"core\.AsyncLLM"):
        write_params(SamplingParams(logits_processors=[lambda ids, logits: logits]))
