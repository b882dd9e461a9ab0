"""Columns of ObsCore 1.1 that describe a stamp as an image of the Virtual Observatory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

FITS, PNG = "image/fits", "image/png"

CALIBRATED = 3
"""ObsCore's level of coadded images."""

WAVELENGTHS = {"g": (398e-9, 548e-9), "r": (568e-9, 716e-9), "i": (710e-9, 857e-9), "z": (850e-9, 1002e-9)}
"""Edges of DECam's filters in metres (NOIRLab's table of DECam filters); 90Prime's and Mosaic-3's differ by some nm."""

_TEXT, _F64, _I32, _I64 = pa.string(), pa.float64(), pa.int32(), pa.int64()

_COLUMNS: tuple[tuple[str, pa.DataType, str, str, str, str], ...] = (
    ("dataproduct_type", _TEXT, "", "meta.code.class", "ObsDataset.dataProductType", "Kind of data"),
    ("calib_level", _I32, "", "meta.code;obs.calib", "ObsDataset.calibLevel", "3: coadded images"),
    ("obs_collection", _TEXT, "", "meta.id", "DataID.collection", "Survey release, with its region"),
    ("obs_id", _TEXT, "", "meta.id", "DataID.observationID", "source_id of the galaxy"),
    ("obs_publisher_did", _TEXT, "", "meta.ref.ivoid", "Curation.publisherDID", "Id of this stamp here"),
    ("access_url", _TEXT, "", "meta.ref.url", "Access.reference", "Address of the file"),
    ("access_format", _TEXT, "", "meta.code.mime", "Access.format", "Its format"),
    ("access_estsize", _I64, "kbyte", "phys.size;meta.file", "Access.size", "Its size"),
    ("target_name", _TEXT, "", "meta.id;src", "Target.name", "source_id of the galaxy"),
    (
        "s_ra",
        _F64,
        "deg",
        "pos.eq.ra",
        "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C1",
        "Right ascension of the galaxy, ICRS",
    ),
    (
        "s_dec",
        _F64,
        "deg",
        "pos.eq.dec",
        "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C2",
        "Declination of the galaxy, ICRS",
    ),
    ("s_fov", _F64, "deg", "phys.angSize;instr.fov", "Char.SpatialAxis.Coverage.Bounds.Extent.diameter", "Diagonal of the stamp"),
    ("s_region", _TEXT, "", "pos.outline;obs.field", "Char.SpatialAxis.Coverage.Support.Area", "Outline of the stamp"),
    (
        "s_resolution",
        _F64,
        "arcsec",
        "pos.angResolution",
        "Char.SpatialAxis.Resolution.Refval.value",
        "Mean FWHM of the PSF over the bands",
    ),
    ("s_xel1", _I64, "", "meta.number", "Char.SpatialAxis.numBins1", "Pixels along x"),
    ("s_xel2", _I64, "", "meta.number", "Char.SpatialAxis.numBins2", "Pixels along y"),
    ("t_min", _F64, "d", "time.start;obs.exposure", "Char.TimeAxis.Coverage.Bounds.Limits.StartTime", "Null: a coadd of many nights"),
    ("t_max", _F64, "d", "time.end;obs.exposure", "Char.TimeAxis.Coverage.Bounds.Limits.StopTime", "Null: a coadd of many nights"),
    ("t_exptime", _F64, "s", "time.duration;obs.exposure", "Char.TimeAxis.Coverage.Support.Extent", "Null: not in the stamp"),
    ("t_resolution", _F64, "s", "time.resolution", "Char.TimeAxis.Resolution.Refval.value", "Null: not in the stamp"),
    ("t_xel", _I64, "", "meta.number", "Char.TimeAxis.numBins", "Null: no axis"),
    (
        "em_min",
        _F64,
        "m",
        "em.wl;stat.min",
        "Char.SpectralAxis.Coverage.Bounds.Limits.LoLimit",
        "Blue edge of the bluest band that has pixels",
    ),
    (
        "em_max",
        _F64,
        "m",
        "em.wl;stat.max",
        "Char.SpectralAxis.Coverage.Bounds.Limits.HiLimit",
        "Red edge of the reddest band that has pixels",
    ),
    ("em_res_power", _F64, "", "spect.resolution", "Char.SpectralAxis.Resolution.ResolPower.refVal", "Null: broad bands"),
    ("em_xel", _I64, "", "meta.number", "Char.SpectralAxis.numBins", "Bands that have pixels"),
    ("o_ucd", _TEXT, "", "meta.ucd", "Char.ObservableAxis.ucd", "What a pixel holds"),
    ("pol_states", _TEXT, "", "meta.code;phys.polarization", "Char.PolarizationAxis.stateList", "Null: no polarization"),
    ("pol_xel", _I64, "", "meta.number", "Char.PolarizationAxis.numBins", "Null: no axis"),
    ("facility_name", _TEXT, "", "meta.id;instr.tel", "Provenance.ObsConfig.Facility.name", "Null: several telescopes"),
    ("instrument_name", _TEXT, "", "meta.id;instr", "Provenance.ObsConfig.Instrument.name", "Null: several cameras"),
    ("bands", _TEXT, "", "instr.bandpass", "", "Bands that have pixels, in the order of the planes"),
    ("preview", _TEXT, "", "meta.ref.url;meta.preview", "", "Address of the color picture"),
    ("provenance_id", _I64, "", "meta.ref", "", "Hash of everything the catalog's row was made from"),
)


def _field(column: tuple[str, pa.DataType, str, str, str, str]) -> pa.Field:
    name, kind, unit, ucd, utype, description = column
    texts = {"unit": unit, "ucd": ucd, "description": description, "utype": f"obscore:{utype}" if utype else ""}
    texts["xtype"] = "adql:REGION" if name == "s_region" else ""
    return pa.field(name, kind, metadata={key: value for key, value in texts.items() if value})


OBSCORE = pa.schema([_field(column) for column in _COLUMNS])
"""The mandatory columns of ObsCore 1.1 in their order, and three of ours."""


def obscore_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of schema `OBSCORE`; what a row lacks is null."""
    return pa.table([pa.array([row.get(item.name) for row in rows], item.type) for item in OBSCORE], schema=OBSCORE)
