"""The SDK's surface is what `surface.txt` says: it changes by intent, with a line in the changelog, never by accident."""

from __future__ import annotations

from tests.sdk.surface import SNAPSHOT, surface


def test_the_surface_is_what_was_written_down() -> None:
    now, then = surface().splitlines(), SNAPSHOT.read_text().splitlines()
    gone, new = sorted(set(then) - set(now)), sorted(set(now) - set(then))
    assert now == then, (
        f"\ngone: {gone}\nnew: {new}\nIf that is meant: python -m tests.sdk.surface, and a line in CHANGELOG.md"
    )
