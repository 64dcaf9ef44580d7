"""Animated GIF and PNG files of similar frames: few colours, and only the changes of each frame."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Format = Literal["gif", "apng"]
NUM_COLOURS, NUM_EXACT = 64, 24
UNKNOWN = 255
UNUSED = (255, 0, 255)  # colour of unchanged pixels; never visible


class Palette:
    """Palette of a frame: exact colours of its largest areas, and approximate ones for the rest."""

    def __init__(self, frame: Image.Image) -> None:
        counted = sorted(frame.getcolors(frame.width * frame.height) or [], reverse=True)
        rest = frame.quantize(NUM_COLOURS - 1 - NUM_EXACT, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        exact = [list(colour) for _, colour in counted[:NUM_EXACT] if isinstance(colour, tuple)]
        others = np.array(rest.getpalette()).reshape(-1, 3)[: NUM_COLOURS - 1 - NUM_EXACT].tolist()
        self.colours = np.array([*exact, *others])
        self._numbers = np.full(1 << 24, UNKNOWN, dtype=np.uint8)

    def numbers(self, frame: Image.Image) -> NDArray[np.uint8]:
        """Index of the nearest colour of each pixel."""
        red, green, blue = np.moveaxis(np.asarray(frame, dtype=np.int32), 2, 0)
        packed = red << 16 | green << 8 | blue
        new = np.unique(packed[self._numbers[packed] == UNKNOWN])
        for colour in new:
            distances = np.abs(self.colours - [colour >> 16, colour >> 8 & 255, colour & 255]).sum(axis=1)
            self._numbers[colour] = distances.argmin()
        found: NDArray[np.uint8] = self._numbers[packed]
        return found


def animated(frames: Iterable[Image.Image], milliseconds: Sequence[int], format_: Format = "gif") -> bytes:
    """Encode frames, each shown for a time, as an image in an endless loop."""
    first, *later = _by_changes(frames)
    options = {"save_all": True, "append_images": later, "duration": list(milliseconds), "loop": 0}
    options |= {"transparency": NUM_COLOURS - 1}
    file = io.BytesIO()
    if format_ == "gif":
        first.save(file, "GIF", optimize=False, disposal=1, **options)
    else:
        first.save(file, "PNG", blend=1, disposal=0, **options)
    return file.getvalue()


def _by_changes(frames: Iterable[Image.Image]) -> Iterator[Image.Image]:
    """Convert frames to the palette of the first, transparent where nothing changes."""
    palette, before = None, None
    for frame in frames:
        palette = palette or Palette(frame)
        now = palette.numbers(frame)
        image = Image.fromarray(now if before is None else np.where(now == before, np.uint8(NUM_COLOURS - 1), now))
        padding = [0] * (3 * (NUM_COLOURS - 1) - palette.colours.size)
        image.putpalette([*palette.colours.flatten().tolist(), *padding, *UNUSED])
        image.info["transparency"] = NUM_COLOURS - 1
        yield image
        before = now
