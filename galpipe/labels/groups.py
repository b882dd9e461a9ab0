"""Which rows show the same galaxy, within a set and between sets, and splits that keep them together (science.md section 6).

Rows belong together where their images have the same bytes, are near-duplicates (coded again, reduced), lie within 3 arcsec, or carry the
same survey-wide id: Galaxy Zoo 2's ``dr7objid`` is Galaxy Zoo 1's id.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from galpipe.errors import BadData, ConfigurationError
from galpipe.labels.labelset import IAU_NAME, Dropped, LabelSet
from galpipe.labels.sources import Item
from galpipe.stamps.normalize import codec

WITHIN = 3.0
"""Arcsec within which two positions are the same galaxy."""

THUMB = 32
"""Pixels on a side of the fingerprint of an image."""

STEEPEST = 6.0
"""Grey levels beyond which a thumbnail's fine structure is cut off, so that no star decides alone."""

ALIKE = 0.65
"""Correlation of fingerprints from which two images are one. Measured on the label sets: images coded again and reduced to 88 to 152
pixels reach 0.82 at least, different galaxies 0.49 at most (`tests/real/test_labels_real.py`)."""

ROWS_TOGETHER = 4096

SURVEY_ID = re.compile(r"\d{15,20}|PGC\d+|" + IAU_NAME.pattern)
"""Values that mean the same galaxy in whatever set they stand: SDSS object ids, PGC numbers, IAU names."""

SIZE = 2**32

LEAST_LOST = float(2**53)
"""float64 keeps whole numbers exact up to here."""


@dataclass(frozen=True)
class Groups:
    """Rows of several sets by group.

    Parameters
    ----------
    numbers : tuple of ndarray of int64
        Per set, shape (N,): the group of each row, -1 for a row without an image.
    keys : tuple of str
        Per group a hash of its images' content, the same whatever else is in the sets.
    dropped : tuple of Dropped
        Rows without an image, all sets.
    """

    numbers: tuple[NDArray[np.int64], ...]
    keys: tuple[str, ...]
    dropped: tuple[Dropped, ...]

    def repeated(self) -> int:
        """Rows that show a galaxy which another row shows already."""
        return int(sum((numbers >= 0).sum() for numbers in self.numbers)) - len(self.keys)

    def shared(self, one: int = 0, other: int = 1) -> int:
        """Groups that two of the sets have in common."""
        return len(np.intersect1d(self.numbers[one][self.numbers[one] >= 0], self.numbers[other][self.numbers[other] >= 0]))

    def split(self, share: float, salt: str = "") -> tuple[NDArray[np.bool_], ...]:
        """Per set, shape (N,): True for rows of the held-out part, chosen by a hash of the group, so that a galaxy always falls alike.

        Parameters
        ----------
        share : float
            Expected part of the groups, 0 to 1.
        salt : str
            Another text, another split.

        Raises
        ------
        ConfigurationError
            If the share is not from 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ConfigurationError("a share from 0 to 1", repr(share))
        draws = np.array([int(hashlib.sha256(f"{salt}:{key}".encode()).hexdigest()[:8], 16) / SIZE for key in self.keys])
        held = np.append(draws < share, False)
        return tuple(held[numbers] for numbers in self.numbers)


@dataclass(frozen=True)
class _Seen:
    """What is known of every image of all sets, one entry per image."""

    place: list[tuple[int, int]]
    content: list[str]
    thumbs: NDArray[np.float16]


def group_rows(sets: Sequence[LabelSet], within: float = WITHIN) -> Groups:
    """Group the rows of sets by galaxy; every image is read once, one at a time.

    Parameters
    ----------
    sets : sequence of LabelSet
    within : float
        Arcsec.

    Returns
    -------
    Groups
    """
    seen, dropped = _look(sets)
    count = len(seen.place)
    pairs = [_same_text(seen.content), _alike(seen.thumbs), _near(sets, seen.place, within), _same_id(sets, seen.place)]
    edges = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
    groups, labels = connected_components(graph, directed=False)
    keys = [""] * int(groups)
    for content, label in zip(seen.content, labels, strict=True):
        keys[label] = min(keys[label] or content, content)
    numbers = tuple(np.full(len(item), -1, np.int64) for item in sets)
    for (which, row), label in zip(seen.place, labels, strict=True):
        numbers[which][row] = label
    return Groups(numbers, tuple(keys), tuple(dropped))


def _look(sets: Sequence[LabelSet]) -> tuple[_Seen, list[Dropped]]:
    place: list[tuple[int, int]] = []
    content: list[str] = []
    thumbs: list[NDArray[np.float16]] = []
    dropped: list[Dropped] = []
    for which, item in enumerate(sets):
        for row, image in item.items():
            if isinstance(image, Dropped):
                dropped.append(image)
                continue
            try:
                thumbs.append(fingerprint(grey(image)))
            except BadData as error:
                dropped.append(item.dropped(row, str(error)))
                continue
            place.append((which, row))
            content.append(_content_hash(image))
    return _Seen(place, content, np.stack(thumbs) if thumbs else np.zeros((0, THUMB * THUMB), np.float16)), dropped


def _content_hash(image: Item) -> str:
    raw = image if isinstance(image, bytes) else np.ascontiguousarray(image.flux, "<f4").tobytes()
    return hashlib.sha256(raw).hexdigest()


def grey(image: Item) -> NDArray[np.float32]:
    """Thumbnail of an encoded picture or of raw pixels, grey levels from 0 to 255, shape (`THUMB`, `THUMB`), north at the top.

    Raises
    ------
    BadData
        If a picture cannot be decoded.
    """
    if isinstance(image, bytes):
        try:
            with Image.open(io.BytesIO(image)) as picture:
                whole = picture.convert("L")
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise BadData("a picture that can be decoded", f"{type(error).__name__}: {error}") from error
    else:
        line = codec(0.007)
        y = np.arcsinh(np.nan_to_num(image.flux.mean(axis=0)) / line.softening)
        whole = Image.fromarray(np.clip(y[::-1] * 30 + 30, 0, 255).astype(np.uint8))
    return np.asarray(whole.resize((THUMB, THUMB), Image.Resampling.BOX), np.float32)


def fingerprint(thumb: NDArray[np.float32]) -> NDArray[np.float16]:
    """Fine structure of a thumbnail, mean 0 and length 1, shape (`THUMB`**2,): smooth galaxies differ in their noise and neighbours."""
    fine = np.clip(thumb - uniform_filter(thumb, 3), -STEEPEST, STEEPEST)
    fine -= fine.mean()
    length = float(np.linalg.norm(fine))
    return (fine.ravel() / length if length > 0 else np.zeros(fine.size)).astype(np.float16)


def _same_text(values: Sequence[str]) -> NDArray[np.int64]:
    first: dict[str, int] = {}
    pairs = [(first[value], index) for index, value in enumerate(values) if value and first.setdefault(value, index) != index]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _alike(thumbs: NDArray[np.float16]) -> NDArray[np.int64]:
    """Pairs of images whose fingerprints correlate; work grows with the square of the rows, memory does not."""
    found = []
    for first in range(0, len(thumbs), ROWS_TOGETHER):
        one = thumbs[first : first + ROWS_TOGETHER].astype(np.float32)
        for second in range(first, len(thumbs), ROWS_TOGETHER):
            close = one @ thumbs[second : second + ROWS_TOGETHER].astype(np.float32).T >= ALIKE
            rows, columns = np.nonzero(close)
            pairs = np.stack([rows + first, columns + second], axis=1)
            found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found).astype(np.int64) if found else np.zeros((0, 2), np.int64)


def _near(sets: Sequence[LabelSet], place: Sequence[tuple[int, int]], within: float) -> NDArray[np.int64]:
    ra, dec = (np.radians([getattr(sets[which], axis)[row] for which, row in place]) for axis in ("ra", "dec"))
    known = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if len(known) < 2:
        return np.zeros((0, 2), np.int64)
    ra, dec = ra[known], dec[known]
    points = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    pairs = cKDTree(points).query_pairs(2 * np.sin(np.radians(within / 3600) / 2), output_type="ndarray")
    return np.asarray(known[pairs], np.int64).reshape(-1, 2)


def _same_id(sets: Sequence[LabelSet], place: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Rows with one survey-wide id in any column of identities.

    Ids of 18 digits that a table holds as float64 have lost their last digits: they match every id that rounds to the same value.
    """
    exact, rounded = _names(sets)
    first: dict[str, int] = {}
    floats: dict[float, int] = {}
    pairs = []
    for index, (which, row) in enumerate(place):
        pairs += [(first[text], index) for text in exact[which][row] if first.setdefault(text, index) != index]
        pairs += [(floats[value], index) for value in rounded[which][row] if floats.setdefault(value, index) != index]
    for index, (which, row) in enumerate(place):
        numbers = [float(text) for text in exact[which][row] if text.isdigit()]
        pairs += [(floats[value], index) for value in numbers if floats.get(value, index) != index]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _names(sets: Sequence[LabelSet]) -> tuple[list[list[set[str]]], list[list[set[float]]]]:
    """Per set and row the survey-wide ids, and those that are known as float64 only."""
    exact: list[list[set[str]]] = []
    rounded: list[list[set[float]]] = []
    for item in sets:
        columns = [item.table[column.name].to_pylist() for column in item.columns if column.kind == "identity"]
        rows = list(zip(*columns, strict=True)) if columns else [()] * len(item)
        exact.append([{text for text in map(str, row) if SURVEY_ID.fullmatch(text)} for row in rows])
        rounded.append([{value for value in row if isinstance(value, float) and value >= LEAST_LOST} for row in rows])
    return exact, rounded
