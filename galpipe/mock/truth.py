"""What is true of a mock release, in a folder beside it.

Per brick: ``<brick>-truth.parquet`` (one row per true source whose center lies in the brick's own area), ``<brick>-objects.parquet``
(every source of the frame that owns pixels), ``<brick>-segmentation.npz`` (who owns each pixel), on request
``<brick>-clean-<band>.fits.fz`` (noiseless, blurred images), and of the survey-like sky ``<brick>-matches.parquet`` (which rows hold
which source's light).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from galpipe.errors import BadData
from galpipe.mock.cameras import camera
from galpipe.mock.fpack import compressed_image, save_images
from galpipe.mock.frame import Frame, signal_to_noise
from galpipe.mock.psf import size_over_fwhm
from galpipe.mock.seen import seen_chances
from galpipe.mock.spec import ALL_BANDS
from galpipe.mock.tractor import Fit
from galpipe.mock.votes import fraction_columns, total_columns, vote

BLENDED = 0.2
"""A source is blended where others add more than this share to its central pixel."""


@dataclass(frozen=True)
class TruthObjects:
    """Detection truth of a frame."""

    table: pa.Table
    """label, brickname, bx, by, x0, y0, x1, y1 (pixels, half-open), area, snr_r, class (galaxy, star), kind, primary."""
    segmentation: NDArray[np.int32]
    """Shape (3600, 3600): label of the object that owns the pixel, 0 = none."""


def truth_table(frame: Frame, fitted: Fit, rng: np.random.Generator) -> pa.Table:
    """The truth of a brick's own sources.

    Fluxes are integrals to infinity as the pixels show them (dust included); for lenses they include the arcs. ``half_light_radius`` is
    the major axis of the unconvolved source in arcsec, ``sersic_n`` the single component nearest to bulge plus disk
    (`galpipe.mock.sky.single_component`), ``bulge_fraction`` is in r, ``position_angle`` in degrees east of north.
    """
    catalog = frame.catalog
    own = np.flatnonzero(catalog["brickid"] == frame.area.brickid)
    objid = np.full(len(catalog), -1, np.int32)
    objid[fitted.source[fitted.source >= 0]] = np.flatnonzero(fitted.source >= 0)
    if fitted.matches:
        # a source whose light is in another one's row shares its objid: many true sources to one row
        merged = fitted.matches["role"] == "merged"
        objid[fitted.matches["source"][merged].astype(np.int64)] = fitted.matches["objid"][merged]
    snr = _snr_r(frame)
    part = catalog[own]
    star = part["kind"] == "star"
    columns: dict[str, object] = {"brickname": [frame.area.name] * len(own), "objid": objid[own]}
    columns |= {"ra": part["ra"], "dec": part["dec"], "bx": frame.x[own], "by": frame.y[own], "kind": part["kind"].tolist()}
    for k, band in enumerate(ALL_BANDS):
        columns[f"flux_{band}"] = part["flux"][:, k]
        columns[f"mag_{band}"] = 22.5 - 2.5 * np.log10(part["flux"][:, k])
    b = part["bulge"][:, 1]
    shape = {
        "half_light_radius": part["half_light_radius"],
        "sersic_n": part["sersic_n"],
        "axis_ratio": b * part["bulge_q"] + (1 - b) * part["disk_q"],
        "position_angle": part["pa"],
        "bulge_fraction": b,
        "redshift": part["redshift"],
    }
    columns |= {name: pa.array(values, pa.float64(), mask=star) for name, values in shape.items()}
    columns |= {"is_blended": _blended(frame)[own], "snr_r": snr[own], "label": (own + 1).astype(np.int32)}
    votes = _votes(frame, snr, rng)
    for name in fraction_columns():
        columns[name] = pa.array(votes[name][own], pa.float32(), mask=np.isnan(votes[name][own]))
    for name in total_columns():
        columns[name] = votes[name][own].astype(np.int32)
    return pa.table(columns)


def _votes(frame: Frame, snr: NDArray[np.float64], rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    if frame.spec.sky != "survey":
        return vote(frame.catalog, snr, frame.state.seeing["r"], rng)
    return vote(frame.catalog, snr, frame.state.seeing["r"] / size_over_fwhm(camera(frame.spec.region, "r")), rng, seen_chances)


def _snr_r(frame: Frame) -> NDArray[np.float64]:
    snr, _ = signal_to_noise(frame)
    return np.asarray(snr[:, frame.bands.index("r")] if "r" in frame.bands else snr[:, -1])


def _blended(frame: Frame) -> NDArray[np.bool_]:
    k = frame.bands.index("r") if "r" in frame.bands else len(frame.bands) - 1
    image = frame.drawn.clean[frame.bands[k]]
    x = np.clip(np.round(frame.x), 0, image.shape[1] - 1).astype(np.int64)
    y = np.clip(np.round(frame.y), 0, image.shape[0] - 1).astype(np.int64)
    central = np.maximum(frame.drawn.central[:, k], 1e-9)
    return np.asarray(image[y, x] - central > BLENDED * central)


def object_table(frame: Frame) -> pa.Table:
    """Every source of a frame that owns pixels, with the box of those pixels."""
    boxes = find_objects(frame.drawn.owner, max_label=len(frame.catalog))
    owning = np.array([k for k, box in enumerate(boxes) if box is not None], np.int64)
    area = np.bincount(frame.drawn.owner.ravel(), minlength=len(frame.catalog) + 1)[1:]
    kind = frame.catalog["kind"][owning]
    edges = np.array([[box[1].start, box[0].start, box[1].stop, box[0].stop] for box in boxes if box is not None], np.int32)
    columns = {"label": (owning + 1).astype(np.int32), "brickname": [frame.area.name] * len(owning)}
    columns |= {"bx": frame.x[owning], "by": frame.y[owning]}
    columns |= {name: edges.reshape(-1, 4)[:, k] for k, name in enumerate(("x0", "y0", "x1", "y1"))}
    columns |= {"area": area[owning].astype(np.int32), "snr_r": _snr_r(frame)[owning]}
    columns |= {"class": np.where(kind == "star", "star", "galaxy").tolist(), "kind": kind.tolist()}
    columns["primary"] = frame.catalog["brickid"][owning] == frame.area.brickid
    return pa.table(columns)


def write_truth(folder: Path, frame: Frame, fitted: Fit, rng: np.random.Generator) -> pa.Table:
    """Write a brick's truth; returns the table of its own sources."""
    folder.mkdir(parents=True, exist_ok=True)
    table = truth_table(frame, fitted, rng)
    pq.write_table(table, folder / f"{frame.area.name}-truth.parquet", compression="zstd")
    pq.write_table(object_table(frame), folder / f"{frame.area.name}-objects.parquet", compression="zstd")
    if fitted.matches:
        pq.write_table(_match_table(frame, fitted), folder / f"{frame.area.name}-matches.parquet", compression="zstd")
    np.savez_compressed(folder / f"{frame.area.name}-segmentation.npz", segmentation=frame.drawn.owner)
    if frame.spec.store_truth_images:
        for band in frame.bands:
            _write_clean(folder / f"{frame.area.name}-clean-{band}.fits.fz", frame.drawn.clean[band])
    return table


def _match_table(frame: Frame, fitted: Fit) -> pa.Table:
    """Every pair of a Tractor row and a true source whose light it holds (`galpipe.mock.tractor.Fit.matches`)."""
    source = fitted.matches["source"].astype(np.int64)
    columns = {"objid": fitted.matches["objid"], "label": (source + 1).astype(np.int32), "role": fitted.matches["role"].tolist()}
    columns["primary"] = frame.catalog["brickid"][source] == frame.area.brickid
    return pa.table(columns)


def _write_clean(path: Path, image: NDArray[np.float32]) -> None:
    save_images(path, [compressed_image(image, fits.Header(), "clean")])


def read_truth(folder: Path, brick: str) -> pa.Table:
    """One row per true source whose center lies in the brick (columns: `truth_table`).

    Raises
    ------
    BadData
        If the folder has no truth of this brick.
    """
    return pq.read_table(_existing(folder, brick, f"{brick}-truth.parquet"))


def truth_objects(folder: Path, brick: str) -> TruthObjects:
    """Detection truth of a brick's whole frame.

    Raises
    ------
    BadData
        If the folder has no truth of this brick.
    """
    table = pq.read_table(_existing(folder, brick, f"{brick}-objects.parquet"))
    with np.load(_existing(folder, brick, f"{brick}-segmentation.npz")) as stored:
        return TruthObjects(table, stored["segmentation"])


def clean_image(folder: Path, brick: str, band: str) -> NDArray[np.float32]:
    """Noiseless, PSF-convolved image in nanomaggies per pixel, shape (3600, 3600); steps of 2e-5.

    Raises
    ------
    BadData
        If the truth was made without ``store_truth_images``, or the band is absent.
    """
    with fits.open(_existing(folder, brick, f"{brick}-clean-{band}.fits.fz")) as hdus:
        return np.ascontiguousarray(hdus[1].data, np.float32)


def _existing(folder: Path, brick: str, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise BadData("truth of this brick", "no such file", unit=brick, file=str(path))
    return path
