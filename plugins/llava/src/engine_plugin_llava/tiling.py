"""How LLaVA-NeXT lays a picture of any size over tiles, and what of them it keeps. Numbers alone: no torch.

Sizes are (height, width) in pixels, as `image_grid_pinpoints` and `image_sizes` have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, int]


def best_pinpoint(size: Size, pinpoints: Sequence[Size]) -> Size:
    """The resolution that keeps most of a picture's pixels; of several, the one that wastes least; of those, the first."""
    height, width = size

    def quality(pinpoint: Size) -> tuple[int, int]:
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - pinpoint[0] * pinpoint[1]

    return max(pinpoints, key=quality)


@dataclass(frozen=True)
class Tiling:
    """The tiles of one checkpoint.

    Attributes:
        pinpoints: Resolutions that a picture may be laid over, each a number of tiles.
        side: Pixels along a tile's side: the tower's.
        patches: Patches along it.
    """

    pinpoints: tuple[Size, ...]
    side: int
    patches: int

    @classmethod
    def of(cls, pinpoints: Sequence[Sequence[int]], side: int, patch_size: int) -> Tiling:
        """From the spelling of configs.

        Raises:
            ValueError: There are no pinpoints, or one is no whole number of tiles.
        """
        sizes = tuple((int(height), int(width)) for height, width in pinpoints)
        odd = [size for size in sizes if min(size) < side or size[0] % side or size[1] % side]
        if odd or not sizes:
            raise ValueError(
                f"image_grid_pinpoints must be whole numbers of tiles of {side} pixels; got {odd or 'none at all'}"
            )
        return cls(sizes, side, side // patch_size)

    def grid(self, size: Size) -> tuple[int, int]:
        """Rows and columns of the tiles that a picture is laid over."""
        height, width = best_pinpoint(size, self.pinpoints)
        return height // self.side, width // self.side

    def count(self, size: Size) -> int:
        """How many pictures the tower sees: the tiles, and before them the whole picture in the size of one."""
        rows, columns = self.grid(size)
        return 1 + rows * columns

    def kept(self, size: Size) -> tuple[slice, slice]:
        """Which rows and columns of the tiles' patches, laid side by side, show the picture and no padding.

        A very thin picture may leave nothing of them.
        """
        rows, columns = (n * self.patches for n in self.grid(size))
        height, width = size
        # Rounded as transformers does, since a patch more or less is a token more or less.
        if width / height > columns / rows:
            padding = (rows - int(round(height * (columns / width), 7))) // 2
            return slice(padding, rows - padding), slice(0, columns)
        padding = (columns - int(round(width * (rows / height), 7))) // 2
        return slice(0, rows), slice(padding, columns - padding)

    def features(self, size: Size) -> int:
        """Rows of embeddings that the tiles give, one for the end of each line of patches among them."""
        rows, columns = (part.stop - part.start for part in self.kept(size))
        return rows * (columns + 1)
