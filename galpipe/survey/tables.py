"""The brick summary table of a region: which bricks a release has, in one set of columns."""

from __future__ import annotations

import gzip
import io
import zlib

import numpy as np
import pyarrow as pa
from astropy.io import fits
from numpy.typing import NDArray

from galpipe.errors import BadData
from galpipe.survey.bricks import brickids_of, geometry_of
from galpipe.survey.files import plain_names

EDGES = ("ra1", "ra2", "dec1", "dec2")
_SCALARS = {
    "brickname": pa.string(),
    "brickid": pa.int32(),
    "ra": pa.float64(),
    "dec": pa.float64(),
    **{edge: pa.float64() for edge in EDGES},
    "survey_primary": pa.bool_(),
}


def read_brick_table(content: bytes, file: str) -> pa.Table:
    """Read a ``survey-bricks-*.fits.gz``.

    Parameters
    ----------
    content : bytes
        The file, gzipped or not.
    file : str
        For messages.

    Returns
    -------
    pyarrow.Table
        brickname, brickid, ra, dec, ra1, ra2, dec1, dec2 (deg), survey_primary (null where the table does not say) and every
        ``nexp_<band>``. What the survey left out (ids and edges before DR8) comes from the brick grid.

    Raises
    ------
    BadData
        If it is not a table of bricks of the survey's grid.
    """
    try:
        # at once: astropy goes back and forth in a file, and would unpack it twice
        plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        with fits.open(io.BytesIO(plain), memmap=False) as hdus:
            data = next(hdu.data for hdu in hdus if isinstance(hdu, fits.BinTableHDU))
            names = plain_names([str(name) for name in data.names])
            given = {name: _native(np.asarray(data.field(index))) for index, name in enumerate(names) if _is_used(name)}
    # damaged tables raise many kinds of error inside astropy and zlib
    except (OSError, EOFError, zlib.error, StopIteration, ValueError, KeyError, TypeError, IndexError) as error:
        raise BadData("a readable table of bricks", f"{type(error).__name__}: {error}", file=file) from error
    if "brickname" not in given:
        raise BadData("a column 'brickname'", f"columns {sorted(given)[:8]}", file=file)
    bricks = np.char.strip(given["brickname"].astype("S8")).astype(str)
    return brick_table(bricks, {key: value for key, value in given.items() if key != "brickname"}, file)


def _is_used(name: str) -> bool:
    return name in _SCALARS or name.startswith("nexp_")


def brick_table(names: NDArray[np.str_], given: dict[str, NDArray[np.generic]], file: str) -> pa.Table:
    """The table of `read_brick_table` from names and whatever else is known, shape (n,) each."""
    ids = brickids_of(names)
    if len(names) and not ids.all():
        raise BadData("names of the survey's brick grid", f"{names[ids == 0][:3].tolist()}", file=file)
    columns: dict[str, pa.Array] = {"brickname": pa.array(names.tolist(), pa.string())}
    computed: dict[str, NDArray[np.generic]] = {"brickid": ids, **geometry_of(ids)}
    for key, kind in list(_SCALARS.items())[1:]:
        value = given.get(key, computed.get(key))
        columns[key] = pa.nulls(len(names), kind) if value is None else pa.array(_native(value)).cast(kind)
    for key in sorted(given):
        # nexp_g counts exposures; nexp alone counts sources of type EXP
        if key.startswith("nexp_") and given[key].ndim == 1:
            columns[key] = pa.array(_native(given[key])).cast(pa.int32())
    return pa.table(columns)


def _native(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))
