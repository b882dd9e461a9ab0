"""Tables that users bring: read from FITS, VOTable, CSV, ECSV or Parquet, with the columns that say where each row lies."""

from __future__ import annotations

import difflib
import warnings
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from astropy.table import Table
from numpy.typing import NDArray

from catalogs.formats import from_astropy
from galpipe.errors import ConfigurationError

_ASTROPY = {".fits": "fits", ".fit": "fits", ".vot": "votable", ".xml": "votable", ".votable": "votable", ".ecsv": "ascii.ecsv"}

ENDINGS = (*_ASTROPY, ".csv", ".parquet")
"""Endings of files that are read; ``.fits.gz`` too."""

PAIRS = (
    ("ra", "dec"),
    ("raj2000", "dej2000"),
    ("_raj2000", "_dej2000"),
    ("raj2000", "decj2000"),
    ("ra_icrs", "de_icrs"),
    ("ra_deg", "dec_deg"),
    ("radeg", "dedeg"),
    ("radeg", "decdeg"),
    ("ra2000", "dec2000"),
    ("alpha_j2000", "delta_j2000"),
    ("s_ra", "s_dec"),
    ("right_ascension", "declination"),
    ("target_ra", "target_dec"),
    ("plug_ra", "plug_dec"),
)
"""Names of right ascension and declination in the tables of the field, lower case, in the order in which they are looked for."""

_UCDS = (("pos.eq.ra;meta.main", "pos.eq.dec;meta.main"), ("pos.eq.ra", "pos.eq.dec"))


@dataclass(frozen=True)
class UserTable:
    """A user's table and where its rows lie.

    Parameters
    ----------
    table : pyarrow.Table
    ra, dec : ndarray
        Degrees, shape (rows,); NaN where a row has none.
    """

    table: pa.Table
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]

    @property
    def placed(self) -> NDArray[np.bool_]:
        """Rows that have a position."""
        return np.asarray(np.isfinite(self.ra) & (np.abs(self.dec) <= 90))

    @classmethod
    def of(cls, table: pa.Table | Table, ra: str = "", dec: str = "", file: str = "") -> UserTable:
        """A table in memory.

        Parameters
        ----------
        table : pyarrow.Table or astropy.table.Table
        ra, dec : str
            Its columns of right ascension and declination; found by UCD or by name (`PAIRS`) where not given.
        file : str
            Where it came from, for errors.

        Raises
        ------
        ConfigurationError
            If it has no such columns, or they hold no angles.
        """
        rows = from_astropy(table) if isinstance(table, Table) else table
        east, north = _named(rows, ra, dec, file) if ra or dec else _guessed(rows, file)
        return cls(rows, _degrees(rows, east, file), _degrees(rows, north, file))


def read_user_table(path: Path, ra: str = "", dec: str = "") -> UserTable:
    """A user's table from a file.

    Raises
    ------
    ConfigurationError
        If the file is of no known kind, does not read, or has no columns with positions; the columns it has are named.
    """
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if ending not in ENDINGS:
        raise ConfigurationError(f"a table whose name ends in one of {ENDINGS}", repr(path.name), file=str(path))
    if not path.is_file():
        raise ConfigurationError("a table", "no such file", file=str(path))
    try:
        table = _read(path, ending)
    # readers of many formats raise errors of many types
    except Exception as error:
        raise ConfigurationError(f"a readable {ending} table", f"{type(error).__name__}: {error}", file=str(path)) from error
    return UserTable.of(table, ra, dec, str(path))


def _read(path: Path, ending: str) -> pa.Table:
    if ending == ".parquet":
        return pq.read_table(path, partitioning=None)
    if ending == ".csv":
        return pacsv.read_csv(path)
    with warnings.catch_warnings():
        # about units that are in no standard
        warnings.simplefilter("ignore")
        return from_astropy(Table.read(path, format=_ASTROPY[ending]))


def _named(table: pa.Table, ra: str, dec: str, file: str) -> tuple[str, str]:
    if not (ra and dec):
        raise ConfigurationError("both columns, of right ascension and of declination", f"{ra or dec!r} alone", file=file)
    lower = {name.lower(): name for name in table.column_names}
    for name in (ra, dec):
        if name not in table.column_names and name.lower() not in lower:
            near = difflib.get_close_matches(name.lower(), lower, 1)
            hint = f" (nearest: {lower[near[0]]!r})" if near else ""
            raise ConfigurationError(f"a column {name!r}", f"columns {table.column_names}{hint}", file=file)
    east, north = (name if name in table.column_names else lower[name.lower()] for name in (ra, dec))
    return east, north


def _guessed(table: pa.Table, file: str) -> tuple[str, str]:
    ucds = {(item.metadata or {}).get(b"ucd", b"").decode().lower(): item.name for item in reversed(list(table.schema))}
    lower = {name.lower(): name for name in reversed(table.column_names)}
    for known, pairs in ((ucds, _UCDS), (lower, PAIRS)):
        for ra, dec in pairs:
            if ra in known and dec in known:
                return known[ra], known[dec]
    what = "columns of right ascension and declination, such as ra and dec (name yours with --ra COLUMN --dec COLUMN)"
    raise ConfigurationError(what, f"columns {table.column_names}", file=file)


def _degrees(table: pa.Table, name: str, file: str) -> NDArray[np.float64]:
    column, item = table[name], table.schema.field(name)
    if not (pa.types.is_integer(item.type) or pa.types.is_floating(item.type)):
        first = column[0].as_py() if len(column) else None
        raise ConfigurationError(f"degrees as numbers in column {name!r}", f"{item.type}, such as {first!r}", file=file)
    unit = (item.metadata or {}).get(b"unit", b"deg").decode()
    try:
        scale = u.Unit(unit).to(u.deg)
    except (ValueError, u.UnitConversionError) as error:
        raise ConfigurationError(f"an angle in column {name!r}", f"unit {unit!r}", file=file) from error
    return np.array(column.cast(pa.float64()).to_numpy(), np.float64) * scale
