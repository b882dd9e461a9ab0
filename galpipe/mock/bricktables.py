"""The survey-bricks tables: the grid of the whole sky, and the summary of one region (reference sections 1.3 and 1.4)."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from galpipe.mock.frame import Frame
from galpipe.mock.pixels import BandPixels
from galpipe.mock.spec import NORTH_DEC, MockSpec
from galpipe.mock.tractor import EXTINCTION, Fit
from galpipe.survey.bricks import ROWS, Brick, all_centers, brick_by_id, row_column

TYPES = {"npsf": "PSF", "nsimp": "SIMP", "nrex": "REX", "nexp": "EXP", "ndev": "DEV", "ncomp": "COMP", "nser": "SER", "ndup": "DUP"}


HIST_BINS = {"dr8": 6, "dr9": 6}
"""Numbers of exposures that are counted apart, where they are not 11."""


@dataclass(frozen=True)
class Totals:
    """What the summary table says of one brick."""

    brickid: int
    rows: int
    ebv: float
    counts: dict[str, int]
    """Primary objects by column name (nobjs, npsf, ...)."""
    bands: dict[str, dict[str, float]]
    """Per band: nexp, psfsize, psfdepth, galdepth."""
    hist: dict[str, tuple[int, ...]]
    """Per band: pixels of the own area with 0, 1, 2, ... exposures."""


def totals_of(frame: Frame, fitted: Fit) -> Totals:
    """Sum up a frame for the region's summary table."""
    primary = fitted.columns["brick_primary"].astype(bool)
    types = fitted.columns["type"][primary]
    counts = {name: int((types == kind).sum()) for name, kind in TYPES.items()}
    counts["nobjs"] = int(primary.sum())
    own = (frame.mask & 1) == 0
    bands, hist = {}, {}
    bins = HIST_BINS.get(frame.spec.like, 11)
    for band, products in frame.pixels.items():
        bands[band] = _band_totals(products, own)
        for name in ("psfdepth", "galdepth"):
            ivar = np.asarray(fitted.columns[f"{name}_{band}"], float)[primary]
            bands[band][name] = _depth_magnitude(ivar)
        exposures = np.minimum(products.nexp[own], bins - 1)
        hist[band] = tuple(int(n) for n in np.bincount(exposures, minlength=bins))
    return Totals(frame.area.brickid, len(fitted.source), frame.state.ebv, counts, bands, hist)


def _band_totals(products: BandPixels, own: NDArray[np.bool_]) -> dict[str, float]:
    return {"nexp": float(np.median(products.nexp[own])), "psfsize": float(np.median(products.psfsize[own]))}


def _depth_magnitude(ivar: NDArray[np.float64]) -> float:
    good = ivar[ivar > 0]
    return float(22.5 - 2.5 * np.log10(5 / np.sqrt(np.median(good)))) if good.size else 0.0


def root_table() -> fits.BinTableHDU:
    """All 662,174 bricks, upper-case columns."""
    brickid, ra, dec = all_centers()
    row, column = row_column(ra, dec)
    count = np.bincount(row, minlength=ROWS)[row]
    width = 360.0 / count
    quadrant = np.where(row == 0, 1, column % 2 + 2 * (row % 2))
    names = _names(ra, dec)
    columns = [
        fits.Column("BRICKNAME", "8A", array=names),
        fits.Column("BRICKID", "J", array=brickid),
        fits.Column("BRICKQ", "I", array=quadrant),
        fits.Column("BRICKROW", "I", array=row),
        fits.Column("BRICKCOL", "I", array=column),
        fits.Column("RA", "D", array=ra),
        fits.Column("DEC", "D", array=dec),
        fits.Column("RA1", "D", array=column * width),
        fits.Column("RA2", "D", array=(column + 1) * width),
        fits.Column("DEC1", "D", array=np.maximum(dec - 0.125, -90)),
        fits.Column("DEC2", "D", array=np.minimum(dec + 0.125, 90)),
    ]
    return fits.BinTableHDU.from_columns(columns)


def _names(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.bytes_]:
    """Brick names as bytes; digit by digit, because 662,174 format calls take seconds."""
    # rounded before it is cut short: see galpipe.survey.bricks.brick
    tenth_ra, tenth_dec = np.round(ra * 1e4).astype(np.int64) // 1000, np.round(np.abs(dec) * 1e4).astype(np.int64) // 1000
    digits = [tenth_ra // 10**k % 10 + 48 for k in (3, 2, 1, 0)] + [np.where(dec >= 0, ord("p"), ord("m"))]
    digits += [tenth_dec // 10**k % 10 + 48 for k in (2, 1, 0)]
    return np.ascontiguousarray(np.stack(digits, axis=1).astype(np.uint8)).view("S8").ravel()


def summary_table(spec: MockSpec, totals: list[Totals]) -> fits.BinTableHDU:
    """One row per brick of the release, lower-case columns (51 for DR9; DR8 does not say which survey a brick is taken from)."""
    bands = spec.band_list
    areas = [brick_by_id(total.brickid) for total in totals]
    columns = [
        fits.Column("brickname", "8A", array=[area.name for area in areas]),
        fits.Column("ra", "D", array=[area.ra for area in areas]),
        fits.Column("dec", "D", array=[area.dec for area in areas]),
    ]
    columns += [fits.Column(f"nexp_{b}", "I", array=[total.bands.get(b, {}).get("nexp", 0) for total in totals]) for b in bands]
    bins = HIST_BINS.get(spec.like, 11)
    columns += [fits.Column(f"nexphist_{b}", f"{bins}J", array=[_hist(total, b, bins) for total in totals]) for b in bands]
    columns += [fits.Column(name, "J", array=[total.counts[name] for total in totals]) for name in ("nobjs", *TYPES)]
    for stem in ("psfsize", "psfdepth", "galdepth"):
        columns += [fits.Column(f"{stem}_{b}", "E", array=[total.bands.get(b, {}).get(stem, 0) for total in totals]) for b in bands]
    columns += _dust(totals, bands) + _geometry(areas, spec)
    return fits.BinTableHDU.from_columns(columns)


def _hist(total: Totals, band: str, bins: int) -> tuple[int, ...]:
    found = total.hist.get(band)
    # a band without files: every pixel of the own area has no exposure
    return found if found is not None else (sum(next(iter(total.hist.values()), (0,))), *[0] * (bins - 1))


def _dust(totals: list[Totals], bands: tuple[str, ...]) -> list[fits.Column]:
    ebv = np.array([total.ebv for total in totals])
    zero = np.zeros(len(totals))
    columns = [fits.Column("ebv", "E", array=ebv)]
    columns += [fits.Column(f"trans_{b}", "E", array=10 ** (-0.4 * EXTINCTION[b] * ebv)) for b in bands]
    columns += [fits.Column(f"cosky_{b}", "E", array=zero) for b in bands]
    columns += [fits.Column(f"ext_{b}", "E", array=EXTINCTION[b] * ebv) for b in bands]
    wise = np.stack([10 ** (-0.4 * EXTINCTION[w] * ebv) for w in ("w1", "w2", "w3", "w4")], axis=1)
    columns += [fits.Column("wise_nobs", "4I", array=np.full((len(totals), 4), 120)), fits.Column("trans_wise", "4E", array=wise)]
    return columns + [fits.Column(f"ext_{w}", "E", array=EXTINCTION[w] * ebv) for w in ("w1", "w2", "w3", "w4")]


def _geometry(areas: list[Brick], spec: MockSpec) -> list[fits.Column]:
    columns = [fits.Column("brickid", "J", array=[area.brickid for area in areas])]
    for name in ("ra1", "ra2", "dec1", "dec2"):
        columns.append(fits.Column(name, "D", array=[getattr(area, name) for area in areas]))
    sky = [(a.ra2 - a.ra1) * np.degrees(np.sin(np.radians(a.dec2)) - np.sin(np.radians(a.dec1))) for a in areas]
    columns.append(fits.Column("area", "D", array=sky))
    if spec.style.two_profiles:
        return columns
    yes = np.ones(len(areas), bool)
    # the mock's sky has no Galaxy: north and south part at the declination alone
    own = np.array([(area.dec >= NORTH_DEC) == (spec.region == "north") for area in areas]) if spec.regions else yes
    return [*columns, fits.Column("survey_primary", "L", array=own), fits.Column("in_desi", "L", array=yes)]


def write_gzip_table(path: Path, table: fits.BinTableHDU) -> None:
    """Write a gzipped FITS table without a time stamp, so that the bytes depend on the content only."""
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0) as packed:
        packed.write(buffer.getvalue())
