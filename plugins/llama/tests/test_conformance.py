"""The laws of the SDK, one test each: what `engine plugins verify` checks."""

from __future__ import annotations

from sdk.testing import Conformance


class TestLlama(Conformance):
    architecture = "LlamaForCausalLM"


class TestMistral(Conformance):
    architecture = "MistralForCausalLM"


class TestMinistral(Conformance):
    architecture = "MinistralForCausalLM"


class TestQwen2(Conformance):
    architecture = "Qwen2ForCausalLM"
