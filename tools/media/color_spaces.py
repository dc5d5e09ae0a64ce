"""Colors of other spaces as sRGB: those of an embedded ICC profile, and Adobe RGB that only Exif tells of."""

from __future__ import annotations

import functools
import io

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms

_PROFILE_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}

# The primaries of Adobe RGB (1998), from its linear values to those of sRGB; both have D65 for white.
_ADOBE_TO_SRGB = np.array([[1.39836, -0.39836, 0.0], [0.0, 1.0, 0.0], [0.0, -0.04293, 1.04293]])

_ADOBE_GAMMA = 563 / 256


def is_adobe_rgb(image: Image.Image) -> bool:
    """Say whether a picture is Adobe RGB by its Exif data alone, as cameras have it: DCF 2.0, and an older way."""
    try:
        exif = Image.Image.getexif(image)
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex.value)
    except Exception:  # As with the orientation.
        return False
    return space == 2 or (space != 1 and isinstance(index, str) and index.strip("\0 ") == "R03")


def from_adobe_rgb(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the sRGB pixels of Adobe RGB ones, (H, W, 3), 0..255; colors that sRGB does not have are cut off."""
    linear = np.clip((values / 255.0) ** _ADOBE_GAMMA @ _ADOBE_TO_SRGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    pixels: npt.NDArray[np.float32] = (255 * encoded).astype(np.float32)
    return pixels


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image in mode L, RGB, CMYK or LAB as sRGB in mode RGB, through its ICC profile if that is usable."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = source.profile.xcolor_space.strip()
            # Many programs give a gray picture the profile of the color space they work in.
            colored = image.convert("RGB") if space == "RGB" and image.mode == "L" else image
            if _PROFILE_MODES.get(space) == colored.mode:
                return ImageCms.ImageCmsTransform(source, _srgb(), colored.mode, "RGB").apply(colored)
        except (OSError, TypeError, ValueError):
            pass
    return image.convert("RGB")


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@functools.cache
def srgb_file() -> bytes:
    """Return the sRGB profile as it stands in a picture's file."""
    content = _srgb().tobytes()
    # The header holds the time of creation: with a fixed one, 2000-01-01, the same pictures give the same files.
    date = b"".join(number.to_bytes(2, "big") for number in (2000, 1, 1, 0, 0, 0))
    return content[:24] + date + content[36:]
