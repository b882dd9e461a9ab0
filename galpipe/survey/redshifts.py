"""Published redshifts: photo-z sweeps that go row by row with the sweeps, and spectroscopic tables.

The photo-z columns are those of the Legacy Survey's ``*-pz.fits`` (Zhou et al. 2021, MNRAS 501, 3309): row-parallel to the sweep of the
same name, no positions, -99 where nothing was computed; DR10.1 adds the same columns with ``_I``, made with the i band.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from galpipe.errors import BadData
from galpipe.survey.tractor import PHOTO_Z, packed_id, read_fits_table

PHOTOZ_ENDING = "-pz.fits"
PHOTOZ_FOLDER = "-photo-z"

NOT_COMPUTED = -90.0
"""Published redshifts below this stand for none: the survey writes -99."""

IDENTITY = ("release", "brickid", "objid")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SpectroscopicColumns:
    """What a spectroscopic table calls its columns, and which redshifts are good.

    Parameters
    ----------
    ra, dec, z : str
    quality : str
        Empty where the table has none: every redshift counts.
    good : tuple of float
        Lowest and highest quality that counts, ends included.
    survey : str
        Column with the survey's name; empty where the table has none.
    """

    ra: str
    dec: str
    z: str
    quality: str = ""
    good: tuple[float, float] = (-np.inf, np.inf)
    survey: str = ""


KNOWN_NAMES = {
    "ra": ("ra", "target_ra", "plug_ra", "raj2000", "ra_deg"),
    "dec": ("dec", "target_dec", "plug_dec", "dej2000", "decj2000", "dec_deg"),
    "z": ("z_spec", "zspec", "z", "redshift", "z_helio", "specz"),
    "survey": ("survey", "source", "instrument"),
}
"""Names, in lower case, that spectroscopic tables use; the first that is there is taken."""

WARNINGS = ("zwarn", "zwarning")
"""Quality columns of which 0 is good (SDSS, DESI)."""

GRADES = ("nq", "q", "quality", "zqual", "z_qual", "qop", "q_z")
"""Quality columns of which 3 and more is good (GAMA, 2dF, DEEP2)."""


def photoz_of(sweep: Path) -> Path | None:
    """The photo-z file of a sweep: beside it, or in the newest ``<version>-photo-z`` folder beside its folder; None if there is none."""
    name = sweep.name.removesuffix(".fits") + PHOTOZ_ENDING
    folders = sorted((item for item in sweep.parent.parent.glob(f"*{PHOTOZ_FOLDER}") if item.is_dir()), key=_version, reverse=True)
    return next((folder / name for folder in (sweep.parent, *folders) if (folder / name).exists()), None)


def _version(folder: Path) -> tuple[float, str]:
    text = folder.name.removesuffix(PHOTOZ_FOLDER)
    try:
        return float(text), text
    except ValueError:
        return -1.0, text


def read_photoz(path: Path, with_i: bool = False) -> pa.Table:
    """Read a photo-z sweep.

    Parameters
    ----------
    path : Path
        ``*-pz.fits``.
    with_i : bool
        Take the columns made with the i band, where the file has them.

    Returns
    -------
    pyarrow.Table
        source_id, release, brickid, objid, the columns `galpipe.survey.tractor.PHOTO_Z`, survey (empty: no spectrum) and training
        (the redshift trained the photo-z), in the file's order. Not computed is null.

    Raises
    ------
    BadData
        If it does not read, or lacks a median or an id.
    """
    table = read_fits_table(path)
    for name in (*IDENTITY, "z_phot_median"):
        if name not in table.column_names:
            raise BadData(f"a column {name!r} of a photo-z sweep", f"columns {table.column_names[:6]}", file=path.name)
    end = "_i" if with_i and "z_phot_median_i" in table.column_names else ""
    rows = table.num_rows
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"source_id": packed_id(table)} | {name: table[name] for name in IDENTITY}
    for name in PHOTO_Z:
        own = name + end if name.startswith("z_phot") else name
        columns[name] = _computed(table[own]) if own in table.column_names else pa.nulls(rows, pa.float32())
    columns["survey"] = _texts(table, "survey")
    training = f"training{end}"
    columns["training"] = table[training].cast(pa.bool_()) if training in table.column_names else pa.nulls(rows, pa.bool_())
    return pa.table(columns)


def _texts(table: pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    if name not in table.column_names:
        return pa.array([""] * table.num_rows, pa.string())
    return pc.utf8_trim_whitespace(pc.fill_null(table[name].cast(pa.string()), ""))


def _computed(values: pa.ChunkedArray) -> pa.Array:
    numbers = np.asarray(values.cast(pa.float32()).to_numpy(), np.float32)
    return pa.array(numbers, mask=~(np.isfinite(numbers) & (numbers > NOT_COMPUTED)))


def join_photoz(sweep: pa.Table, photoz: pa.Table, file: str) -> pa.Table:
    """A sweep with the columns of its photo-z file.

    Parameters
    ----------
    sweep : pyarrow.Table
        From `galpipe.survey.tractor.read_tractor`.
    photoz : pyarrow.Table
        From `read_photoz`; the same sources in the same order.
    file : str
        Name of the photo-z file, for messages.

    Raises
    ------
    BadData
        If they are not of the same sources row by row.
    """
    if sweep.num_rows != photoz.num_rows:
        raise BadData(f"{sweep.num_rows} rows, as the sweep has", f"{photoz.num_rows}", file=file)
    if all(name in sweep.column_names for name in IDENTITY):
        differing = np.flatnonzero(packed_id(sweep).to_numpy() != photoz["source_id"].to_numpy())
        if len(differing):
            raise BadData("the sweep's sources in its order", f"{len(differing)} other ids, the first in row {differing[0]}", file=file)
    for name in (*PHOTO_Z, "survey", "training"):
        place = sweep.column_names.index(name) if name in sweep.column_names else None
        sweep = sweep.append_column(name, photoz[name]) if place is None else sweep.set_column(place, name, photoz[name])
    return sweep


def read_spectra(path: Path, names: SpectroscopicColumns | None = None) -> pa.Table:
    """Read a table of spectroscopic redshifts.

    Parameters
    ----------
    path : Path
        ``.fits`` (also gzipped), ``.csv`` or ``.parquet``.
    names : SpectroscopicColumns, optional
        By default the columns are found by `KNOWN_NAMES`, `WARNINGS` (0 is good) and `GRADES` (3 and more is good).

    Returns
    -------
    pyarrow.Table
        ra, dec (deg), z_spec, survey and, where the table has release, brickid and objid, source_id; good redshifts only. Schema
        metadata ``left_out`` says how many rows were not.

    Raises
    ------
    BadData
        If it does not read, lacks a column, or no row is good.
    """
    table = _read_any(path)
    table = table.rename_columns([name.lower() for name in table.column_names])
    own = names or _found(table, path)
    for name in (own.ra, own.dec, own.z, own.quality, own.survey):
        if name and name.lower() not in table.column_names:
            raise BadData(f"a column {name!r}", f"columns {table.column_names[:12]}", file=path.name)
    ra, dec, z = (_numbers(table, name) for name in (own.ra, own.dec, own.z))
    good = np.isfinite(ra) & (np.abs(dec) <= 90) & np.isfinite(z) & (z > -0.01)
    if own.quality:
        quality = _numbers(table, own.quality)
        good &= (quality >= own.good[0]) & (quality <= own.good[1])
    if not good.any():
        raise BadData("at least one good redshift", f"none of {table.num_rows} rows", file=path.name)
    columns: dict[str, pa.Array] = {"ra": pa.array(ra % 360.0), "dec": pa.array(dec), "z_spec": pa.array(z)}
    columns["survey"] = _texts(table, own.survey.lower()) if own.survey else pa.array([path.stem] * table.num_rows)
    if all(name in table.column_names for name in IDENTITY):
        columns["source_id"] = packed_id(table)
    return pa.table(columns).filter(pa.array(good)).replace_schema_metadata({"left_out": str(int((~good).sum()))})


def _read_any(path: Path) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".csv":
            return pacsv.read_csv(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData("a readable table of redshifts", str(error), file=path.name) from error
    return read_fits_table(path)


def _found(table: pa.Table, path: Path) -> SpectroscopicColumns:
    found = {what: next((name for name in names if name in table.column_names), "") for what, names in KNOWN_NAMES.items()}
    for what in ("ra", "dec", "z"):
        if not found[what]:
            raise BadData(f"a column for {what}, such as {', '.join(KNOWN_NAMES[what])}", f"{table.column_names[:12]}", file=path.name)
    warning = next((name for name in WARNINGS if name in table.column_names), "")
    grade = next((name for name in GRADES if name in table.column_names), "")
    good = (0.0, 0.0) if warning else (3.0, np.inf) if grade else (-np.inf, np.inf)
    return SpectroscopicColumns(found["ra"], found["dec"], found["z"], warning or grade, good, found["survey"])


def _numbers(table: pa.Table, name: str) -> Floats:
    return np.array(table[name.lower()].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
