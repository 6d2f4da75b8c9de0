"""Images from the bytes of their files, whatever is in them; every way to be broken is a `BadRecord` of a kind.

Leaves crops and sizes to `input_pipeline/image.py`.
"""

import io

import numpy as np
import simplejpeg
from PIL import Image

from input_pipeline.bad_records import BadRecord

# Pillow knows more, and some of it starts other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS = 80_000_000  # 240 MB decoded; Pillow itself warns from 89 million on and refuses from 179 million on
MAX_SCANS = 200  # of a progressive JPEG, each of which is a pass over all pixels; encoders write about ten
ORIENTATION = 0x0112  # the Exif tag


class ImageFile:
    """An image of which only the header was read.

    `height` and `width` are those of the decoded array, after the turn that Exif asks for; of an animation, the first frame counts.

    Args:
        data: the bytes of a file.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        BadRecord: no bytes (`empty`), more pixels (`too_large`), or no image of a known kind (`image`).
    """

    def __init__(self, data: bytes, max_pixels: int = MAX_PIXELS):
        if not data:
            raise BadRecord("an image of no bytes", "empty")
        self._data = data
        try:
            self._picture = Image.open(io.BytesIO(data), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise BadRecord(f"{error}", "too_large") from error
        except Exception as error:  # a broken header makes Pillow's plugins raise nearly anything
            raise BadRecord(f"no image that Pillow knows: {len(data)} bytes that begin with {data[:8]!r}", "image") from error
        width, height = self._picture.size
        if width * height > max_pixels:
            raise BadRecord(f"an image of {width} x {height} pixels, more than {max_pixels}", "too_large")
        if self._picture.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_SCANS:
            raise BadRecord(f"a JPEG of {data.count(bytes.fromhex('ffda'))} scans, more than {MAX_SCANS}", "too_large")
        self._turn = _orientation(self._picture)
        self.height, self.width = (width, height) if self._turn > 4 else (height, width)

    def pixels(self, channels: int = 0, shrink: int = 1) -> np.ndarray:
        """The image as uint8 [H W C]; may be called once.

        Transparent pixels show white, as on a page; grey in 16 bits keeps the upper eight; colours are converted as Pillow does, without
        looking at profiles.

        Args:
            channels: 3 for RGB, 1 for grey, 0 for what the file has.
                shrink: 2, 4 or 8 decodes a JPEG to that part of its sides, rounded up, at a part of the cost; other files stay as they are.

        Raises:
            BadRecord: bytes end early (`truncated`), or are not what the header promised (`image`).
        """
        array = self._jpeg(channels, shrink) if self._picture.format in ("JPEG", "MPO") else None
        return _turned(array if array is not None else self._any(channels, shrink), self._turn)

    def _jpeg(self, channels: int, shrink: int) -> np.ndarray | None:
        """What libjpeg-turbo makes of a grey or YCbCr JPEG without a warning; the rest is Pillow's to judge.

        The same pixels at two thirds of Pillow's time, which goes through a copy of four bytes a pixel.
        """
        if self._picture.mode not in ("L", "RGB"):
            return None
        width, height = self._picture.size
        colours = "GRAY" if channels == 1 or (channels == 0 and self._picture.mode == "L") else "RGB"
        if colours == "GRAY" and self._picture.mode == "RGB":
            return None  # libjpeg's grey is the luma; Pillow's, from clipped RGB, differs by rounding
        least = dict(min_height=-(-height // shrink), min_width=-(-width // shrink)) if shrink > 1 else {}
        try:
            return simplejpeg.decode_jpeg(self._data, colours, **least)
        except ValueError:
            return None

    def _any(self, channels: int, shrink: int) -> np.ndarray:
        try:
            if shrink > 1:
                self._picture.draft(None, tuple(max(side // shrink, 1) for side in self._picture.size))
            self._picture.load()
            return _eight_bits(self._picture, channels)
        except BadRecord:
            raise
        except Exception as error:  # as above
            kind = "truncated" if "truncated" in str(error) or isinstance(error, EOFError) else "image"
            raise BadRecord(f"a damaged {self._picture.format}: {error or type(error).__name__}", kind) from error


class ImageArray:
    """Pixels that a source holds already, with the face of an `ImageFile`.

    Args:
        array: uint8 [H W C] of 1, 2 (with alpha), 3 or 4 (with alpha) channels.

    Raises:
        TypeError: something else.
    """

    def __init__(self, array: np.ndarray):
        if not (isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in (1, 2, 3, 4)):
            found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"an image must be the bytes of a file or uint8 [H W C] with C of 1 to 4, not {found}.")
        self._array = array
        self.height, self.width = array.shape[:2]

    def pixels(self, channels: int = 0, shrink: int = 1) -> np.ndarray:
        """As those of an `ImageFile`; nothing shrinks."""
        if self._array.shape[2] in ((1, 3) if channels == 0 else (channels,)):
            return self._array
        return _eight_bits(Image.fromarray(self._array[..., 0] if self._array.shape[2] == 1 else self._array), channels)


def opened(value: bytes | np.ndarray) -> ImageFile | ImageArray:
    """An image as a source hands it over: bytes of a file, or pixels."""
    return ImageFile(value) if isinstance(value, bytes) else ImageArray(value)


def pixels(value: bytes | np.ndarray, channels: int = 0) -> np.ndarray:
    """uint8 [H W C] of an image as a source hands it over; see `ImageFile.pixels`.

    Raises:
        BadRecord: bytes that cannot be decoded.
    """
    return opened(value).pixels(channels)


def _orientation(picture: Image.Image) -> int:
    """1 to 8 as Exif counts, 1 where nobody says; Pillow turns TIFFs itself."""
    if "exif" not in picture.info or picture.format == "TIFF":
        return 1
    try:
        turn = picture.getexif().get(ORIENTATION, 1)
        return turn if turn in range(1, 9) else 1
    except Exception:  # broken notes beside a good image
        return 1


def _turned(array: np.ndarray, turn: int) -> np.ndarray:
    if turn > 4:  # stored sideways
        array = array.swapaxes(0, 1)
    rows, columns = slice(None, None, -1 if turn in (3, 4, 7, 8) else 1), slice(None, None, -1 if turn in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(array[rows, columns])


def _eight_bits(picture: Image.Image, channels: int) -> np.ndarray:
    mode = picture.mode
    if mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif mode in ("I", "F"):
        raise BadRecord(f"a {picture.format} of 32 bits a value, whose range nobody knows", "image")
    elif picture.has_transparency_data:  # the colour below is anything, black as a rule
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    grey = channels == 1 or (channels == 0 and mode in ("1", "L", "La", "LA") or mode.startswith("I;16"))
    array = np.asarray(picture.convert("L" if grey and channels != 3 else "RGB"))
    return array.reshape(*array.shape[:2], -1)
