"""Read Tractor tables of any release into one set of columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io import fits
from numpy.typing import NDArray

from galpipe.errors import BadData
from galpipe.survey.bits import bit_names, mask_values
from galpipe.survey.bricks import Brick, brick_by_name
from galpipe.survey.coadd import check_complete
from galpipe.survey.files import plain_names
from galpipe.survey.positions import add_pixels, inside, turned
from galpipe.unit import Unit

NEEDED = ("release", "brickid", "objid", "type", "ra", "dec", "ebv")
"""Columns without which a brick's table is refused, besides the fluxes of at least one band and a shape."""

BAND_QUANTITIES = (
    "flux",
    "flux_ivar",
    "mw_transmission",
    "nobs",
    "psfsize",
    "psfdepth",
    "galdepth",
    "fracflux",
    "fracmasked",
    "rchisq",
)
"""Quantities of `tractor_subset` that have one column per band."""

SHAPES = ("shape_r", "shape_e1", "shape_e2")
PHOTO_Z = (*(f"z_phot_{name}" for name in ("mean", "median", "std", "l68", "u68", "l95", "u95")), "z_spec")
_NOT_COMPUTED = -99.0
_F32, _I32, _I64 = pa.float32(), pa.int32(), pa.int64()


def subset_schema(bands: tuple[str, ...] = ("g", "r", "i", "z")) -> pa.Schema:
    """Columns and types of `tractor_subset`, in order."""
    fields: list[tuple[str, pa.DataType]] = [
        ("source_id", pa.int64()),
        ("release", _I32),
        ("brickid", _I32),
        ("objid", _I32),
        ("brickname", pa.string()),
        ("brick_primary", pa.bool_()),
        ("type", pa.string()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("bx", _F32),
        ("by", _F32),
        ("ebv", _F32),
        ("maskbits", _I64),
        ("fitbits", _I64),
        ("ref_cat", pa.string()),
        ("ref_id", pa.int64()),
    ]
    for quantity in BAND_QUANTITIES:
        fields += [(f"{quantity}_{band}", _I32 if quantity == "nobs" else _F32) for band in bands]
    fields += [(f"{quantity}_{band}", _F32) for quantity in ("flux", "flux_ivar") for band in ("w1", "w2")]
    fields += [(name, _F32) for shape in SHAPES for name in (shape, f"{shape}_ivar")]
    fields += [(name, _F32) for name in ("sersic", "sersic_ivar", *PHOTO_Z)]
    return pa.schema(fields)


def read_tractor(path: Path, unit: Unit | None = None) -> pa.Table:
    """Read a Tractor, sweep or target table.

    Parameters
    ----------
    path : Path
        FITS file with a binary table in its first extension.
    unit : Unit, optional
        The brick it must be of. Then `NEEDED` columns are required, and ``brick_primary``, ``bx`` and ``by`` are computed
        where the file lacks them.

    Returns
    -------
    pyarrow.Table
        All columns, names in lower case (but for the band at the end: ``flux_Y``), native byte order, text stripped, vector columns
        as lists. A right ascension that is a whole turn off is put right. Rows with a NaN position, and rows that repeat an
        objid, are kept (`galpipe.survey.selection` fails them one by one). Schema metadata ``maskbits`` holds the bit
        names of the header as ``NAME=bit`` pairs, ``stated_rows`` the header's own count of rows.

    Raises
    ------
    BadData
        If the file does not read, lacks a needed column (named) or is of another brick.
    """
    name = path.name
    table = read_fits_table(path, str(unit) if unit else "")
    if unit is None:
        _require(table, ("ra", "dec"), name, "")
        return turned(table)
    return _as_brick(table, unit, name)


def read_fits_table(path: Path, label: str = "") -> pa.Table:
    """Any binary table of the survey, whatever its columns; arguments and result as `read_tractor` has them.

    Parameters
    ----------
    path : Path
    label : str
        Unit that the file is of, for messages.

    Raises
    ------
    BadData
        If the file does not read, or has no table.
    """
    name = path.name
    if path.stat().st_size == 0:
        raise BadData("a FITS table", "an empty file", unit=label, file=name)
    try:
        with fits.open(path, memmap=False, character_as_bytes=True) as hdus:
            check_complete(hdus, path, label)
            table = _first_table(hdus)
            cards = {key: value for hdu in hdus for key, value in hdu.header.items() if key.startswith("MBIT")}
            stated = next((int(hdu.header["NAXIS2"]) for hdu in hdus if isinstance(hdu, fits.BinTableHDU)), 0)
    except BadData:
        raise
    # damaged tables raise many kinds of error inside astropy
    except Exception as error:
        raise BadData("a readable FITS table", f"{type(error).__name__}: {error}", unit=label, file=name) from error
    if table is None:
        raise BadData("a binary table", "no table HDU", unit=label, file=name)
    bits = ",".join(f"{key}={bit}" for key, bit in bit_names(cards).items())
    return table.replace_schema_metadata({"maskbits": bits, "stated_rows": str(stated)})


def _first_table(hdus: fits.HDUList) -> pa.Table | None:
    for hdu in hdus:
        if isinstance(hdu, fits.BinTableHDU):
            names = plain_names([str(item) for item in hdu.columns.names])
            return pa.table([_arrow(hdu.data.field(index)) for index in range(len(names))], names=names)
    return None


def _arrow(values: NDArray[np.generic]) -> pa.Array:
    array = np.asarray(values)
    if array.dtype.kind in "SU":
        raw = array.tolist()
        return pa.array([(item.decode("latin-1") if isinstance(item, bytes) else str(item)).strip(" \0") for item in raw], pa.string())
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    if native.ndim == 1:
        return pa.array(native)
    width = int(np.prod(native.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(native.reshape(-1)), width)


def _require(table: pa.Table, names: tuple[str, ...], file: str, unit: str) -> None:
    for name in names:
        if name not in table.column_names:
            raise BadData(f"a column {name!r}", f"{table.num_columns} columns without it", unit=unit, file=file)


def _as_brick(table: pa.Table, unit: Unit, file: str) -> pa.Table:
    """Check a table against the brick it is of; add what older tables leave out."""
    label, brick = str(unit), brick_by_name(unit.brick)
    _require(table, NEEDED, file, label)
    present = bands_of(table)
    if not present:
        raise BadData("a column flux_<band> for at least one band", "none", unit=label, file=file)
    _require(table, tuple(f"{quantity}_{band}" for band in present for quantity in ("flux", "flux_ivar")), file, label)
    if "shapeexp_r" not in table.column_names:
        _require(table, SHAPES, file, label)
    _check_owner(table, brick, file, label)
    table = turned(table, brick)
    if "brick_primary" not in table.column_names:
        table = table.append_column("brick_primary", pa.array(inside(table, brick)))
    if "bx" not in table.column_names or "by" not in table.column_names:
        table = add_pixels(table, brick)
    return table


def bands_of(table: pa.Table) -> tuple[str, ...]:
    """Optical bands that a table has a flux or its inverse variance for, from g to z, then others."""
    found = {name.rsplit("_", 1)[1] for name in table.column_names if name.startswith(("flux_", "flux_ivar_"))}
    return tuple(sorted((band for band in found if len(band) == 1), key=lambda band: ("griz".find(band) % 5, band)))


def _check_owner(table: pa.Table, brick: Brick, file: str, label: str) -> None:
    ids = set(pc.unique(table["brickid"]).to_pylist())
    if ids - {brick.brickid}:
        raise BadData(f"brickid {brick.brickid} in every row", f"{sorted(ids)[:5]}", unit=label, file=file)
    if "brickname" in table.column_names:
        names = set(pc.unique(table["brickname"]).to_pylist())
        if names - {brick.name}:
            raise BadData(f"brickname {brick.name} in every row", f"{sorted(names)[:5]}", unit=label, file=file)


def packed_id(table: pa.Table) -> pa.Array:
    """``release << 42 | brickid << 22 | objid`` as int64, the layout of ``ls_id_dr11``; null where a part is missing.

    Parameters
    ----------
    table : pyarrow.Table
        With columns release, brickid, objid.
    """
    parts = ("release", "brickid", "objid")
    if any(name not in table.column_names for name in parts):
        return pa.nulls(table.num_rows, pa.int64())
    release, brickid, objid = (table[name].to_numpy().astype(np.int64) for name in parts)
    return pa.array((release << 42) | (brickid << 22) | objid)


def unpack_id(source_id: int) -> tuple[int, int, int]:
    """(release, brickid, objid) of a packed id."""
    return source_id >> 42, (source_id >> 22) & 0xFFFFF, source_id & 0x3FFFFF


def tractor_subset(table: pa.Table, bands: tuple[str, ...] = ("g", "r", "i", "z")) -> pa.Table:
    """The columns of a Tractor table that galpipe carries on, the same for every release.

    Parameters
    ----------
    table : pyarrow.Table
        From `read_tractor`.
    bands : tuple of str
        Bands to give columns to; those that the table lacks are null.

    Returns
    -------
    pyarrow.Table
        Schema `subset_schema`, same rows and order. Fluxes in nanomaggies, ``shape_r`` in arcsec (half-light, major axis).
        DR8's ``shapeexp``/``shapedev`` become ``shape`` by type, with the Sersic index of the type. Photometric redshifts
        of -99 become null.
    """
    given = {name: table[name] for name in table.column_names}
    given["source_id"] = packed_id(table)
    given |= {name: pa.array(mask_values(table[name].to_numpy())) for name in ("maskbits", "fitbits") if name in given}
    if "shape_r" not in given and "shapeexp_r" in given and "type" in given:
        given.update(_shapes_by_type(table))
    schema = subset_schema(bands)
    columns = [_cast(given.get(field.name), field, table.num_rows) for field in schema]
    return pa.table(columns, schema=schema.with_metadata(table.schema.metadata))


def _cast(values: pa.ChunkedArray | pa.Array | None, field: pa.Field, rows: int) -> pa.Array | pa.ChunkedArray:
    if values is None:
        return pa.nulls(rows, field.type)
    result = pc.cast(values, field.type, safe=False)
    if field.name in PHOTO_Z:
        result = pc.if_else(pc.equal(result, pa.scalar(_NOT_COMPUTED, _F32)), pa.scalar(None, _F32), result)
    return result


def _shapes_by_type(table: pa.Table) -> dict[str, pa.Array]:
    """DR8: one profile's shape and Sersic index from the exponential and de Vaucouleurs columns.

    A composite (COMP) takes the shape of its brighter component; its Sersic index is null, as it has two.
    """
    kind = table["type"].to_numpy(zero_copy_only=False).astype(str)
    share = table["fracdev"].to_numpy() if "fracdev" in table.column_names else np.zeros(table.num_rows)
    dev = (kind == "DEV") | ((kind == "COMP") & (share > 0.5))
    point = (kind == "PSF") | (kind == "DUP")
    result: dict[str, pa.Array] = {}
    for shape in SHAPES:
        for end in ("", "_ivar"):
            part = shape.removeprefix("shape_") + end
            if {f"shapeexp_{part}", f"shapedev_{part}"} <= set(table.column_names):
                value = np.where(dev, table[f"shapedev_{part}"].to_numpy(), table[f"shapeexp_{part}"].to_numpy())
                result[shape + end] = pa.array(np.where(point, 0.0, value).astype(np.float32))
    index = np.select([point, kind == "DEV", kind == "COMP"], [0.0, 4.0, np.nan], 1.0).astype(np.float32)
    result["sersic"] = pa.array(index, from_pandas=True)
    return result


def stated_rows(table: pa.Table) -> int | None:
    """Rows that the file's header states, whatever became of them since; None for a table that came from no file."""
    text = (table.schema.metadata or {}).get(b"stated_rows", b"").decode()
    return int(text) if text else None


def maskbit_names(table: pa.Table) -> dict[str, int]:
    """Bit names that `read_tractor` found in the file's header."""
    text = (table.schema.metadata or {}).get(b"maskbits", b"").decode()
    return {name: int(bit) for name, bit in (item.split("=") for item in text.split(",") if item)} or bit_names({})
