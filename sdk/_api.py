"""The version of the SDK surface and the names under which plugins are found: plain values, quick to import."""

from __future__ import annotations

from typing import Final

API_VERSION: Final = (1, 0)
"""(major, minor) of the SDK surface; the major is the N of the entry-point group `engine.v<N>`. A minor only adds; what
is to go warns for two minors first."""

DISTRIBUTION: Final = "engine-plugin-sdk"
"""The distribution of `core` and `sdk`; a plugin's requirement on it is the minor version it was written for."""

GROUP_PREFIX: Final = "engine.v"
GROUP_MAJOR: Final = 1
ENTRY_POINT_GROUP: Final = f"{GROUP_PREFIX}{GROUP_MAJOR}"
MODEL_TYPES_SUFFIX: Final = ".model_types"
FALLBACK: Final = "*"
"""The entry name of a plugin that is asked when nobody claims an architecture."""
