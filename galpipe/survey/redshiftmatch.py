"""Which source has which redshift, by id or by position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

RADIUS = 1.0
"""Arcsec within which a spectrum is a source's."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Matches:
    """Redshifts of sources.

    Parameters
    ----------
    rows : ndarray of int64, shape (N,)
        Row of the table of redshifts, -1 for none; no row twice.
    z : ndarray, shape (N,)
        NaN for none.
    separation : ndarray, shape (N,)
        Arcsec; 0 where ids matched, NaN for none.
    by_id : int
        How many matched by id rather than by position.
    """

    rows: NDArray[np.int64]
    z: Floats
    separation: Floats
    by_id: int


def match_redshifts(sources: pa.Table, spectra: pa.Table, radius: float = RADIUS) -> Matches:
    """Redshifts of sources, by id where both have it and it is the same source, else the nearest within a radius.

    Ids hold within one release only (science.md section 1), so an id match more than the radius away is none. A spectrum belongs to
    the nearest source alone.

    Parameters
    ----------
    sources : pyarrow.Table
        N rows with ra and dec (deg), and source_id where known.
    spectra : pyarrow.Table
        Of `read_spectra`, or any with ra, dec and z_spec.
    radius : float
        Arcsec.
    """
    count = sources.num_rows
    rows, separation = np.full(count, -1, np.int64), np.full(count, np.nan)
    places = [np.stack(_unit_vectors(table), axis=1) for table in (sources, spectra)]
    usable = [np.flatnonzero(np.isfinite(place).all(axis=1)) for place in places]
    by_id = 0
    if "source_id" in sources.column_names and "source_id" in spectra.column_names:
        known = {value: row for row, value in enumerate(spectra["source_id"].to_pylist()) if value is not None}
        for row, value in enumerate(sources["source_id"].to_pylist()):
            other = known.get(value, -1)
            if other >= 0 and not _arcsec(places[0][row], places[1][other]) > radius:
                rows[row], separation[row] = other, 0.0
                by_id += 1
    if len(usable[0]) and len(usable[1]):
        free = usable[1][~np.isin(usable[1], rows)]
        asked = usable[0][rows[usable[0]] < 0]
        _nearest((places[0], asked), (places[1], free), radius, (rows, separation))
    z = np.where(rows >= 0, _numbers(spectra, "z_spec")[np.maximum(rows, 0)], np.nan) if spectra.num_rows else np.full(count, np.nan)
    return Matches(rows, z, separation, by_id)


def _nearest(
    sources: tuple[Floats, NDArray[np.int64]],
    spectra: tuple[Floats, NDArray[np.int64]],
    radius: float,
    found: tuple[NDArray[np.int64], Floats],
) -> None:
    """Pairs within the radius, the closest first, each side once; fills the arrays in place."""
    if not len(sources[1]) or not len(spectra[1]):
        return
    rows, separation = found
    reach = 2 * np.sin(np.radians(radius / 3600) / 2)
    tree, other = cKDTree(spectra[0][spectra[1]]), cKDTree(sources[0][sources[1]])
    pairs = other.sparse_distance_matrix(tree, reach, output_type="ndarray")
    taken: set[int] = set()
    for one, two, apart in sorted(pairs.tolist(), key=lambda pair: (pair[2], pair[0], pair[1])):
        source, spectrum = int(sources[1][one]), int(spectra[1][two])
        if rows[source] < 0 and spectrum not in taken:
            rows[source], separation[source] = spectrum, float(np.degrees(2 * np.arcsin(float(apart) / 2)) * 3600)
            taken.add(spectrum)


def _unit_vectors(table: pa.Table) -> tuple[Floats, Floats, Floats]:
    ra, dec = (np.radians(_numbers(table, name)) for name in ("ra", "dec"))
    return np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)


def _arcsec(one: Floats, other: Floats) -> float:
    return float(np.degrees(2 * np.arcsin(np.minimum(np.linalg.norm(one - other) / 2, 1.0))) * 3600)


def _numbers(table: pa.Table, name: str) -> Floats:
    return np.array(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
