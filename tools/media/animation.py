"""Animated pictures: WebP, or PNG, which the same programs show."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tools.media.color_spaces import srgb_file
from tools.media.files import check_writable, replacing
from tools.media.picture_files import sentence

_FORMATS = {".webp": "WEBP", ".png": "PNG"}

WEBP_QUALITY = 85


def check_animation(path: Path) -> None:
    """Raise ValueError unless ``write_animation`` can write to ``path``: to be called before a long computation."""
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"cannot write {str(path)!r}: the suffix is {path.suffix!r}, expected .webp or .png")
    check_writable(path)


def write_animation(path: Path, frames: Sequence[npt.NDArray[np.uint8]], seconds: Sequence[float]) -> None:
    """Write an animation that begins again at its end; the file appears whole or not at all.

    Parameters
    ----------
    path : its suffix, .webp or .png, decides the format; a WebP is lossy, a PNG is not.
    frames : (H, W, 3) each, of one shape, sRGB.
    seconds : how long each is shown.

    Raises ValueError where it cannot be written.
    """
    check_animation(path)
    kind = _FORMATS[path.suffix.lower()]
    first, *others = (Image.fromarray(frame) for frame in frames)
    options = {"quality": WEBP_QUALITY} if kind == "WEBP" else {}
    buffer = io.BytesIO()
    try:
        first.save(
            buffer,
            kind,
            save_all=True,
            append_images=others,
            duration=[round(1000 * time) for time in seconds],
            loop=0,
            icc_profile=srgb_file(),
            **options,
        )
    except (ValueError, OSError) as error:
        raise ValueError(f"cannot write {str(path)!r}: {sentence(error)}") from None
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
