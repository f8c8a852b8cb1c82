"""Image files → whole decoded pictures, or the reason why not; in bounded time and memory, whatever the file holds.

A file is judged before it is decoded: by its kind and bytes, then by its header's pixels, and a JPEG by its scans. No
accepted file takes more than 1 GB in the end: Pillow holds 4 bytes a pixel of most pictures, some decoders more
(:data:`MAX_BUFFERED_PIXELS`). Damaged metadata is no reason to refuse good pixels: they are loaded with a note.
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin, UnidentifiedImageError, _imaging

from perturb_tutorial.places import Place
from perturb_tutorial.places.requests import BucketError
from perturb_tutorial.reading import open_regular

MAX_PIXELS = 100_000_000
"""Largest photograph; more is refused before it is decoded."""
MAX_BUFFERED_PIXELS = 52_000_000
"""Largest WebP, TIFF and JPEG of several scans, whose decoders hold up to 16 bytes a pixel in all."""
MAX_SCANS = 100
"""Of a JPEG; encoders write 1 to 20. The time of each is that of the whole picture, whatever little it holds."""
MAX_SCANNED_PIXELS = 1_000_000_000
"""Scans times pixels of a JPEG."""
MAX_MEGABYTES = 400
MAX_WEBP_MEGABYTES = 64  # read whole by Pillow before anything is decoded
_HEADER_READS, _HEADER_BYTES = 10_000, 32_000_000
_READS, _STRIPS = 1_000_000, 100_000

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
"""Pillow's names of the formats that are read. Others are refused: EPS, for one, would start Ghostscript."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_ORIENTATION = 0x0112
_STRIP_TAGS = (273, 279, 324, 325)  # places and lengths of strips and of tiles
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation
_SIDEWAYS = [_TURNS[orientation] for orientation in (5, 6, 7, 8)]
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


class Unusable(Exception):
    """Why one file is refused, as the rest of a sentence that begins with its name."""

    missing = False


@dataclass
class Decoded:
    """A picture as its file stores it, how it is to be turned upright, and what is damaged beside its pixels."""

    image: Image.Image
    turn: Image.Transpose | None = None
    damage: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the upright picture in image px."""
        width, height = self.image.size
        sideways = self.turn is not None and self.turn in _SIDEWAYS
        return (width, height) if sideways else (height, width)


class _Metered(io.BufferedReader):
    """A file that ends the reading of a header, or of a picture, of too many pieces."""

    reads = 0
    taken = 0
    most_reads, most_bytes = _HEADER_READS, _HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.reads += 1
        self.taken += len(content)
        if self.reads > self.most_reads or self.taken > self.most_bytes:
            raise Unusable("has a header or pixels in far too many pieces; save it again")
        return content

    def begin_pixels(self) -> None:
        self.most_reads, self.most_bytes = _READS, 2 * MAX_MEGABYTES * 10**6


@contextmanager
def refusals() -> Iterator[None]:
    """Whatever files and decoders raise in the block is raised as :class:`Unusable`; a bucket's refusal stays one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's do not name the file
            yield
    except (Unusable, BucketError, ImportError):
        raise
    except FileNotFoundError:
        refusal = Unusable("no such file; check the path")
        refusal.missing = True
        raise refusal from None
    except PermissionError:
        raise Unusable("no permission to read it; change its mode") from None
    except Image.DecompressionBombError:
        raise Unusable(f"has more than {MAX_PIXELS // 10**6} megapixels; make it smaller first") from None
    except UnidentifiedImageError:
        raise Unusable(
            "is not an image that can be read here; expected JPEG, PNG, WebP, TIFF, GIF or BMP"
        ) from None
    except MemoryError:
        raise Unusable("does not fit into the memory; make it smaller first") from None
    except OSError as error:
        if error.errno == errno.EISDIR:
            raise Unusable("is a folder; name the image files in it") from None
        if error.errno is not None:
            raise Unusable(f"cannot be read ({error.strerror})") from None
        raise Unusable(f"is damaged or cut off ({_line(error)}); copy the file again") from None
    except Exception as error:  # Pillow's decoders may raise anything on damaged bytes
        raise Unusable(f"is damaged ({type(error).__name__}: {_line(error)}); copy the file again") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def decode(path: Place) -> Decoded:
    """The decoded picture in the file ``path``; within :func:`refusals`."""
    with _Metered(open_regular(path, MAX_MEGABYTES).detach()) as file:
        head = file.read(16)
        if not head:
            raise Unusable("is empty (0 bytes); copy the file again")
        if head[:2] in (b"II", b"MM"):
            _check_strips(head, file)
        if head[:4] == b"RIFF":
            open_regular(path, MAX_WEBP_MEGABYTES).close()
        try:
            return _decode(file)
        except Unusable:
            raise
        except Exception as error:
            if not head.startswith(_PNG):
                raise
            decoded = _decode(_Metered(_pixels_only(file)))
            decoded.damage = _line(error)
            return decoded


def upright_size(path: Place) -> tuple[int, int]:
    """(height, width) in image px of the picture in ``path``, decoded in full; :class:`Unusable` where it cannot be."""
    with refusals():
        decoded = decode(path)
    warn_of_damage(path, decoded)
    return decoded.size


def warn_of_damage(path: Place, decoded: Decoded) -> None:
    """One warning where a picture was loaded without its damaged metadata."""
    if decoded.damage is not None:
        warnings.warn(
            f"{path}: its metadata is damaged ({decoded.damage}); it is loaded without, "
            "so which side is up is not known",
            stacklevel=2,
        )


def _decode(file: _Metered) -> Decoded:
    file.seek(0)
    image = Image.open(file, formats=FORMATS)
    _check_size(image, MAX_PIXELS)
    if image.format in ("TIFF", "WEBP"):
        _check_size(image, MAX_BUFFERED_PIXELS, f" for a {image.format} file")
    file.begin_pixels()
    if image.format in ("JPEG", "MPO"):
        _check_scans(image, file)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _decode_tiff(image)
    image.load()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # Read anew: where a JPEG is opened, Pillow hides errors.
            Image.Exif().load(image.info.get("exif") or b"")
            orientation = image.getexif().get(_ORIENTATION)
    except Exception as error:  # Pillow's readers of EXIF and XMP may raise anything on damaged bytes
        return Decoded(image, damage=_line(error))
    if orientation is None and caught:
        return Decoded(image, damage=" ".join(str(caught[0].message).split()))
    return Decoded(image, _TURNS.get(orientation or 1))


def _decode_tiff(image: TiffImagePlugin.TiffImageFile) -> Decoded:
    """Pillow turns a TIFF upright itself, when its pixels are loaded and its metadata is read."""
    _check_samples(image)
    read_metadata, damage = image.load_end, []

    def or_not() -> None:
        try:
            read_metadata()
        except Exception as error:
            damage.append(_line(error))

    setattr(image, "load_end", or_not)  # noqa: B010  (mypy lets no method be assigned)
    with _quiet_libtiff():
        image.load()
    # A copy has the size of the pixels, where that in the header was to be turned.
    return Decoded(image.copy(), damage=damage[0]) if damage else Decoded(image)


def _check_size(image: Image.Image, most: int, of: str = "") -> None:
    """``of``: the files that have this limit."""
    width, height = image.size
    if width * height > most:
        raise Unusable(
            f"has {width * height / 1e6:.0f} megapixels, more than {most // 10**6}{of}; make it smaller first"
        )


def _check_samples(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuses numbers whose scale or sign Pillow drops, such as int32 and 12 bits: they would load almost black."""
    bits = image.tag_v2.get(258, (1,))
    forms = image.tag_v2.get(339, (1,))
    if 3 in forms:
        kind = "floating-point"
    elif not set(bits) <= {1, 2, 4, 8, 16}:
        kind = f"{max(bits)}-bit"
    elif not set(forms) <= {1, 4}:  # unsigned, or not stated
        kind = "signed"
    elif image.mode.startswith("I") and image.tag_v2.get(262) == 0:
        kind = "inverted 16-bit"
    else:
        return
    raise Unusable(f"holds {kind} pixels; save it with 8 or 16 bits a channel")


def _check_strips(head: bytes, file: _Metered) -> None:
    """Refuses a TIFF of more strips or tiles than any picture needs: Pillow makes a list of them when it opens it."""
    order, big = "<" if head[:2] == b"II" else ">", 43 in head[2:4]
    with suppress(struct.error, OSError, ValueError, OverflowError):  # what is no TIFF is judged later
        (place,) = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])
        file.seek(place)
        (number,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        tag = struct.Struct(order + ("HHQQ" if big else "HHII"))
        tags = file.read(min(number, 65535) * tag.size)
        for name, _, count, _ in tag.iter_unpack(tags[: len(tags) // tag.size * tag.size]):
            if name in _STRIP_TAGS and count > _STRIPS:
                raise Unusable(f"has {count} strips or tiles; save it again")


def _check_scans(image: Image.Image, file: _Metered) -> None:
    file.seek(0)
    scans = count_scans(file.read())
    if scans > 1:
        _check_size(image, MAX_BUFFERED_PIXELS, " for a JPEG of several scans")
    pixels = image.size[0] * image.size[1]
    if scans > MAX_SCANS or scans * pixels > MAX_SCANNED_PIXELS:
        raise Unusable(f"is a JPEG of {scans} scans, too many for its size; save it again as a baseline JPEG")


def count_scans(jpeg: bytes) -> int:
    """How many times a JPEG's pixels are gone through, up to the end of its first picture."""
    scans, place = 0, 2
    # Coded pixels hold no other marker than restarts: a byte 255 in them is followed by 0.
    while (found := _MARKER.search(jpeg, place)) is not None:
        marker, place = jpeg[found.start() + 1], found.end()
        if marker == 0xD9:  # end of image
            break
        scans += marker == 0xDA
        if marker not in (0x01, 0xD8):
            place += max(2, int.from_bytes(jpeg[place : place + 2]))
    return scans


def _pixels_only(file: _Metered) -> io.BytesIO:
    """A PNG without its metadata, as far as its chunks can be told apart."""
    file.begin_pixels()
    file.seek(len(_PNG))
    bare = io.BytesIO()
    bare.write(_PNG)
    while len(start := file.read(8)) == 8:
        length, kind = int.from_bytes(start[:4]), start[4:]
        if kind in _PNG_PIXELS:
            bare.write(start + file.read(length + 4))  # and its check sum
        else:
            file.seek(length + 4, os.SEEK_CUR)
        if kind == b"IEND":
            break
    bare.seek(0)
    return bare


_libtiff = threading.Lock()


@contextmanager
def _quiet_libtiff() -> Iterator[None]:
    """Within the block libtiff writes nothing to the terminal: it does not name the file, and Pillow raises errors.

    Where libtiff is built into Pillow without its names, as on Windows, it goes on as it did.
    """
    with _libtiff, ExitStack() as stack:
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(_imaging.__file__)
            for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                exchange = getattr(library, name)
                exchange.restype, exchange.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
                stack.callback(exchange, exchange(None))
        yield
