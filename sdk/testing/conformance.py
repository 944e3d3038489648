"""The conformance kit under pytest: one test for each law."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from .levels import LEVELS, laws_up_to
from .suite import Suite


class Conformance:
    """Inherit it, name the architecture, and every law is a test.

    Attributes:
        architecture: The HF architecture string.
        level: The highest level to check; by default, the highest there is.

    Example:
        >>> class TestLlava(Conformance):
        ...     architecture = "LlavaForConditionalGeneration"
    """

    architecture: ClassVar[str]
    level: ClassVar[int] = max(LEVELS)

    @pytest.fixture(scope="class")
    @classmethod
    def suite(cls) -> Iterator[Suite]:
        """The laws about the architecture; shared, so that the checkpoint is made once."""
        with Suite(cls.architecture) as suite:
            yield suite

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each law up to the level."""
        if "law_id" in metafunc.fixturenames:
            cls: Any = metafunc.cls
            metafunc.parametrize("law_id", [law.id for law in laws_up_to(cls.level)])

    def test_law(self, suite: Suite, law_id: str) -> None:
        """The law holds."""
        result = suite.check(law_id)
        if result.status == "skipped":
            pytest.skip(result.detail)
        if result.status == "failed":
            pytest.fail(result.explain(), pytrace=False)
