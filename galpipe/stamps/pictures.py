"""Color pictures as label sets have them: how each set was drawn and coded, and how a picture becomes a stamp (the JPEG route)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from galpipe.config import SOFTENING, SURVEY_PIXSCALE
from galpipe.errors import BadData, ConfigurationError
from galpipe.stamps.normalize import codec, encode, in_range
from galpipe.stamps.stampset import FILLED, StampSet
from galpipe.stamps.stretch import BANDS, DR2_RGB, EFIGI, GZ_DECALS, SKYSERVER, Picture, Stretch

STAMP_SIZE = 152
"""Pixels on a side of a stamp (science.md section 3)."""

JPEG_ROUTE = "JPEG route"
SURVEY_PIXELS = "survey pixels"
"""The two routes by which a stamp can reach the model; everything got through the first says so."""

MOST_PIXELS = 4096 * 4096
"""Larger pictures are refused: a small file can unfold to more than the memory holds."""


@dataclass(frozen=True)
class PictureKind:
    """How the pictures of a label set were drawn, scaled and coded.

    Parameters
    ----------
    name : str
    survey : str
    stretch : Stretch
    size : int
        Pixels on a side of the published pictures.
    pixscale : float or None
        Arcsec per pixel; None where each picture was scaled to its galaxy and the scale was not published with it. Sizes in arcsec then
        mean nothing.
    quality, subsampling : int
        JPEG quality and chroma subsampling (Pillow's numbers: 0 = 4:4:4, 2 = 4:2:0), from the files' quantization tables.
    note : str
        Where the facts come from.
    span : float
        Part of a picture of unknown scale that is taken to span a stamp: Galaxy Zoo's pictures show much sky around the galaxy.
    """

    name: str
    survey: str
    stretch: Stretch
    size: int
    pixscale: float | None
    quality: int
    subsampling: int
    note: str
    span: float = 1.0

    @property
    def scale(self) -> float:
        """Arcsec per pixel that is used."""
        return self.scale_of(self.size)

    def scale_of(self, size: int) -> float:
        """Arcsec per pixel of a picture with so many pixels on a side."""
        return self.pixscale or STAMP_SIZE * SURVEY_PIXSCALE / (size * self.span)


_SCALED = "scaled to the galaxy, scale not in the file"

GALAXY_ZOO_SPAN = 0.5
"""Half-light radii of 5 to 10 px of 152 become 10 to 20: as large as EFIGI's, and as the survey's own galaxies that show structure."""

KINDS = {
    kind.name: kind
    for kind in (
        PictureKind(
            "legacy_galaxy10",
            "Legacy Surveys",
            DR2_RGB,
            256,
            SURVEY_PIXSCALE,
            75,
            2,
            "viewer cut-outs, median sky 32 to 34 as dr2_rgb's 32",
        ),
        PictureKind(
            "legacy_rings",
            "Legacy Surveys",
            GZ_DECALS,
            424,
            None,
            90,
            0,
            f"GZ DECaLS subjects; {_SCALED}; median sky 17 as computed",
            GALAXY_ZOO_SPAN,
        ),
        PictureKind(
            "sdss_gz1_classes", "SDSS", SKYSERVER, 423, None, 75, 2, f"SkyServer i, r, g; {_SCALED}; median sky 4, 4, 2", GALAXY_ZOO_SPAN
        ),
        PictureKind(
            "sdss_gz2_votes", "SDSS", SKYSERVER, 424, None, 75, 2, f"SkyServer i, r, g; {_SCALED}; median sky 4, 4, 2", GALAXY_ZOO_SPAN
        ),
        PictureKind(
            "sdss_spirals", "SDSS", SKYSERVER, 424, None, 75, 2, f"SkyServer i, r, g; {_SCALED}; median sky 4, 4, 2", GALAXY_ZOO_SPAN
        ),
        PictureKind(
            "sdss_metallicity", "SDSS", SKYSERVER, 128, None, 92, 2, "SkyServer i, r, g; scale not in the file; median sky 4, 2, 2"
        ),
        PictureKind(
            "sdss_efigi_attributes", "SDSS", EFIGI, 88, None, 75, 2, f"EFIGI's own drawing of i, r, g; {_SCALED}; median sky 20, 18, 22"
        ),
    )
}
"""Every label set that galpipe knows, by the name that its file begins with. This table is the only place that says which goes how."""

UNKNOWN = PictureKind("unknown", "unknown", DR2_RGB, STAMP_SIZE, None, 75, 2, "taken to be drawn like the survey's own pictures")
"""What the pictures of any other set are taken for, marked as assumed."""


def kind_of(name: str) -> tuple[PictureKind, bool]:
    """The kind of a set by its file's name, and whether that is an assumption.

    Parameters
    ----------
    name : str
        Without folder; must begin with the name of a known set, such as ``sdss_gz2_votes_test.parquet``.
    """
    for known, kind in KINDS.items():
        if name.startswith(known):
            return kind, False
    return UNKNOWN, True


def kind_named(name: str) -> PictureKind:
    """The kind with a name.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    if name not in KINDS:
        raise ConfigurationError(f"a kind of picture among {sorted(KINDS)}", repr(name))
    return KINDS[name]


def encode_jpeg(picture: Picture, kind: PictureKind) -> bytes:
    """JPEG bytes of a picture, coded as the set's pictures are."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=kind.quality, subsampling=kind.subsampling)
    return buffer.getvalue()


def decode(content: bytes, file: str = "") -> Picture:
    """Pixels of an encoded picture, shape (H, W, 3).

    Raises
    ------
    BadData
        If it cannot be decoded, is too large or has no colors.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise BadData(f"a picture of at most {MOST_PIXELS} pixels", f"{picture.width} x {picture.height}", file=file)
            if len(picture.getbands()) < 3:
                raise BadData("a color picture", f"mode {picture.mode}", file=file)
            return np.asarray(picture.convert("RGB"), np.uint8)
    # a damaged picture makes the decoder raise almost anything
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadData("a picture that can be decoded", f"{type(error).__name__}: {error}", file=file) from error


def resize(picture: Picture, size: int) -> Picture:
    """A square picture of another size (Lanczos, in picture values), shape (size, size, 3)."""
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS), np.uint8)


def middle(picture: Picture, span: float) -> Picture:
    """The middle part of a picture, ``span`` of its width and height: what a stamp of it shows."""
    margins = [round(side * (1 - span) / 2) for side in picture.shape[:2]]
    return picture[margins[0] : picture.shape[0] - margins[0], margins[1] : picture.shape[1] - margins[1]]


def framed(picture: Picture, kind: PictureKind) -> Picture:
    """A stamp's picture as a set's files hold it: of pictures of unknown scale it is the middle, with sky around that is mirrored in."""
    if kind.pixscale is not None:
        return picture
    inner = round(kind.size * kind.span)
    before = (kind.size - inner) // 2
    after = kind.size - inner - before
    return np.pad(resize(picture, inner), ((before, after), (before, after), (0, 0)), mode="reflect")


def picture_flux(picture: Picture, kind: PictureKind) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """A picture on the stamp's grid, as fluxes.

    The picture is brought to 0.262 arcsec per pixel (or, where its scale is not known, its middle to the width of a stamp), taken back by
    its stretch, and cropped or filled around its middle. Values are nanomaggies per 0.262 arcsec pixel whatever the zoom: the stretch sees
    surface brightness.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W, 3)
    kind : PictureKind

    Returns
    -------
    flux : ndarray of float32, shape (3, S, S)
        g, r, z, row 0 at the south.
    known : ndarray of bool, shape (3, S, S)
        False where the flux is a limit (clipped channel) or cannot be told.
    inside : ndarray of bool, shape (S, S)
        False where the picture does not reach.
    """
    longest = max(picture.shape[:2])
    # pictures of unknown scale fill the stamp whatever their size
    size = max(1, round(longest * kind.scale_of(longest) / SURVEY_PIXSCALE))
    if picture.shape[:2] != (size, size):
        picture = resize(picture, size)
    flux, known = kind.stretch.flux(picture)
    start = (size - 1) // 2 + (size % 2 == 0) - STAMP_SIZE // 2
    inside = np.zeros((STAMP_SIZE, STAMP_SIZE), bool)
    first, last = max(0, start), min(size, start + STAMP_SIZE)
    place = slice(first - start, last - start)
    inside[place, place] = True
    on_grid, told = np.zeros((3, STAMP_SIZE, STAMP_SIZE), np.float32), np.zeros((3, STAMP_SIZE, STAMP_SIZE), bool)
    on_grid[:, place, place], told[:, place, place] = flux[:, first:last, first:last], known[:, first:last, first:last]
    return on_grid, told, inside


def picture_codes(picture: Picture, kind: PictureKind) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Codes (3, S, S) and mask (S, S) of a picture.

    Clipped pixels stay in use: a channel at 0 is dark sky and at 255 a bright core, limits, but better than a hole at the galaxy's center.
    """
    flux, _, inside = picture_flux(picture, kind)
    lines = [codec(SOFTENING[band]) for band in BANDS]
    image = np.stack([encode(plane, line) for plane, line in zip(flux, lines, strict=True)])
    mask = np.zeros((STAMP_SIZE, STAMP_SIZE), np.uint8)
    for bit, (plane, line) in enumerate(zip(flux, lines, strict=True)):
        mask |= np.where(in_range(plane, line) & inside, 0, 1 << bit).astype(np.uint8)
    mask[~inside] |= FILLED
    return image, mask


def picture_stamps(pictures: Sequence[Picture], kind: PictureKind, facts: dict[str, Sequence[Any]] | None = None) -> StampSet:
    """Stamps of pictures, every row marked ``jpeg_route``.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8, shape (H, W, 3)
    kind : PictureKind
    facts : dict, optional
        Further columns of the sources table, one value per picture.
    """
    count = len(pictures)
    coded = [picture_codes(picture, kind) for picture in pictures]
    shape = (count, 3, STAMP_SIZE, STAMP_SIZE)
    image = np.stack([item[0] for item in coded]) if coded else np.zeros(shape, np.int16)
    mask = np.stack([item[1] for item in coded]) if coded else np.zeros((count, *shape[2:]), np.uint8)
    columns: dict[str, Any] = dict(facts or {}) | {
        "pixscale": pa.array(np.full(count, SURVEY_PIXSCALE), pa.float32()),
        "jpeg_route": pa.array(np.ones(count, bool)),
        "scale_assumed": pa.array(np.full(count, kind.pixscale is None)),
        "stretch": pa.array([kind.stretch.name] * count, pa.string()),
    }
    softening = tuple(SOFTENING[band] for band in BANDS)
    attrs = {"route": JPEG_ROUTE, "kind": kind.name, "photometric": kind.stretch.photometric}
    return StampSet(image, np.zeros(shape, np.uint8), mask, pa.table(columns), BANDS, SURVEY_PIXSCALE, softening, attrs)
