"""The conformance kit under pytest: one test for each law."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest

from .law import Law
from .levels import IN_PROCESS, laws_up_to
from .suite import Suite


class _Laws:
    """A test for each law, over one suite."""

    @classmethod
    @abstractmethod
    def _opened(cls) -> Suite:
        """What the laws are about."""

    @classmethod
    @abstractmethod
    def _laws(cls) -> Sequence[Law]:
        """The laws that are checked."""

    @pytest.fixture(scope="class")
    @classmethod
    def suite(cls) -> Iterator[Suite]:
        """The laws with what they are about; shared, so that the checkpoint is made once."""
        with cls._opened() as suite:
            yield suite

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each law."""
        if "law_id" in metafunc.fixturenames:
            cls: Any = metafunc.cls
            metafunc.parametrize("law_id", [law.id for law in cls._laws()])

    def test_law(self, suite: Suite, law_id: str) -> None:
        """The law holds."""
        result = suite.check(law_id)
        if result.status == "skipped":
            pytest.skip(result.detail)
        if result.status == "failed":
            pytest.fail(result.explain(), pytrace=False)


class Conformance(_Laws):
    """Inherit it, name the architecture, and every law is a test.

    Attributes:
        architecture: The HF architecture string.
        level: The highest level to check; by default, the highest that needs no server.

    Example:
        >>> class TestLlava(Conformance):
        ...     architecture = "LlavaForConditionalGeneration"
    """

    architecture: ClassVar[str]
    level: ClassVar[int] = IN_PROCESS

    @classmethod
    def _opened(cls) -> Suite:
        return Suite(cls.architecture)

    @classmethod
    def _laws(cls) -> Sequence[Law]:
        return laws_up_to(cls.level)


class SchemeConformance(_Laws):
    """The same for a quantization scheme.

    Attributes:
        scheme: The name that it is registered under.

    Example:
        >>> class TestNibbles(SchemeConformance):
        ...     scheme = "nibbles"
    """

    scheme: ClassVar[str]

    @classmethod
    def _opened(cls) -> Suite:
        from .schemes import SchemeSuite

        return SchemeSuite(cls.scheme)

    @classmethod
    def _laws(cls) -> Sequence[Law]:
        from .scheme_laws import LAWS

        return LAWS
