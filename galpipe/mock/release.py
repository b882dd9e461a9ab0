"""Write a mock release: a tree that looks like a published one to a program that reads it."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from galpipe.commit import replace_folder
from galpipe.errors import ConfigurationError
from galpipe.mock.bricktables import Totals, root_table, summary_table, totals_of, write_gzip_table
from galpipe.mock.cameras import survey_conditions
from galpipe.mock.fitter import survey_fit
from galpipe.mock.fpack import compressed_image, save_images
from galpipe.mock.frame import Frame
from galpipe.mock.headers import add_bits, base_header, image_header
from galpipe.mock.pixels import BandPixels, conditions, expose, mask_image
from galpipe.mock.render import draw_frame
from galpipe.mock.sky import Catalog, brick_sky
from galpipe.mock.spec import MockSpec, MockSummary, truth_folder
from galpipe.mock.survey import Scene, survey_frame
from galpipe.mock.tractor import Fit, fit
from galpipe.mock.tractor_columns import tractor_columns
from galpipe.mock.truth import write_truth
from galpipe.mock.twoprofiles import as_published
from galpipe.mock.universe import background_sky
from galpipe.survey.bricks import BRICK_PIXELS, Brick, brick, brick_wcs, row_column

Progress = Callable[[str, int, int], None]

MARGIN = 160
"""Pixels around a frame from which sources are taken, because their light reaches in."""


@dataclass(frozen=True)
class BrickJob:
    """One brick to write; travels to a worker process."""

    spec: MockSpec
    number: int
    tree: Path
    truth: Path


@dataclass(frozen=True)
class _Done:
    totals: Totals
    galaxies: int


def make_release(out: Path, spec: MockSpec, progress: Progress | None = None) -> MockSummary:
    """Write a release tree at ``out`` and its truth beside it.

    The same ``spec`` gives the same bytes.

    Parameters
    ----------
    out : Path
        The release's root; ``out/<region>/coadd/...`` and so on. Must not hold files yet.
    spec : MockSpec
    progress : callable, optional
        Called as ``progress("bricks", done, total)``.

    Raises
    ------
    ConfigurationError
        If ``out`` or its truth folder exists and is not empty.
    """
    start = time.monotonic()
    truth = truth_folder(out)
    for folder in (out, truth):
        if folder.exists() and any(folder.iterdir()):
            raise ConfigurationError("an empty or new folder for the mock release", "a folder with files in it", file=str(folder))
    parts = spec.parts()
    done: dict[int, _Done] = {}
    with replace_folder(truth) as new_truth, replace_folder(out) as new_tree:
        jobs = [job for part in parts for job in _jobs(part, new_tree, new_truth)]
        for index, result in _run(jobs):
            done[index] = result
            if progress is not None:
                progress("bricks", len(done), len(jobs))
        results = [done[k] for k in range(len(jobs))]
        for part in parts:
            _write_tables(new_tree, part, [result.totals for job, result in zip(jobs, results, strict=True) if job.spec == part])
    listed = spec.brick_list()
    true = {listed[job.number].name: result.galaxies for job, result in zip(jobs, results, strict=True)}
    return MockSummary(
        out,
        truth,
        spec.like,
        "+".join(part.region for part in parts),
        tuple(true),
        sum(true.values()),
        sum(result.totals.rows for result in results),
        time.monotonic() - start,
    )


def _jobs(spec: MockSpec, tree: Path, truth: Path) -> list[BrickJob]:
    """The bricks of one region; a named region's truth lies in its own folder, as its tables differ from the other's."""
    own = truth / spec.region if spec.regions else truth
    return [BrickJob(spec, number, tree / spec.region, own) for number in spec.numbers()]


def _run(jobs: list[BrickJob]) -> Iterator[tuple[int, _Done]]:
    workers = min(jobs[0].spec.workers or os.cpu_count() or 1, len(jobs))
    if workers == 1:
        for index, job in enumerate(jobs):
            yield index, write_brick(job)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(write_brick, job): index for index, job in enumerate(jobs)}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def write_brick(job: BrickJob) -> _Done:
    """Draw one brick and write its coadds, table and truth."""
    return write_frame(job, make_frame(job.spec, job.number))


def write_frame(job: BrickJob, frame: Frame) -> _Done:
    """Write the coadds, table and truth of a drawn frame."""
    spec, area = job.spec, frame.area
    fitter = survey_fit if spec.sky == "survey" else fit
    fitted = as_published(spec.style, fitter(frame, _rng(spec, area, 3)))
    folder = job.tree / "coadd" / area.name[:3] / area.name
    folder.mkdir(parents=True, exist_ok=True)
    for band, products in frame.pixels.items():
        _write_band(folder, spec, area, (band, products))
    _write_maskbits(folder, spec, area, frame.mask)
    _write_checksums(folder, f"legacysurvey_{spec.like}_{spec.region}_coadd_{area.name[:3]}_{area.name}")
    _write_tractor(job.tree / "tractor" / area.name[:3] / f"tractor-{area.name}.fits", frame, fitted)
    truth = write_truth(job.truth, frame, fitted, _rng(spec, area, 4))
    return _Done(totals_of(frame, fitted), sum(kind != "star" for kind in truth["kind"].to_pylist()))


def _rng(spec: MockSpec, area: Brick, purpose: int) -> np.random.Generator:
    return np.random.default_rng(spec.entropy(area.brickid, purpose))


def make_frame(spec: MockSpec, number: int) -> Frame:
    """Draw the frame of the block's brick ``number``: true sources, noiseless images, coadd products, mask."""
    bricks = spec.brick_list()
    area = bricks[number]
    state = conditions(spec, area)
    empty = {bricks[k].brickid for k in spec.empty_bricks}
    catalog, x, y = frame_sources(spec, area, empty, brick_sky)
    bands = [band for band in spec.band_list if band not in spec.missing_of(number)]
    if spec.sky == "survey":
        faint = frame_sources(spec, area, empty, background_sky)
        return survey_frame(Scene(spec, area, survey_conditions(spec, area), tuple(bands), (catalog, x, y), faint))
    drawn = draw_frame(catalog, x, y, {band: state.seeing[band] for band in bands})
    pixels = {band: expose(drawn.clean[band], band, state, _rng(spec, area, 10 + ord(band))) for band in bands}
    return Frame(spec, area, state, catalog, x, y, drawn, pixels, mask_image(area, catalog, (x, y), pixels))


def frame_sources(
    spec: MockSpec, area: Brick, empty: set[int], sky: Callable[[MockSpec, Brick, bool], Catalog] = brick_sky
) -> tuple[Catalog, NDArray[np.float64], NDArray[np.float64]]:
    """True sources whose light can reach a frame, with their pixel positions, in a fixed order."""
    wcs = brick_wcs(area)
    line = np.linspace(-MARGIN, BRICK_PIXELS + MARGIN, 13)
    gx, gy = np.meshgrid(line, line)
    ra, dec = wcs.all_pix2world(gx, gy, 0)
    rows, columns = row_column(ra, dec)
    near = sorted({(int(r), int(c)) for r, c in zip(rows.ravel(), columns.ravel(), strict=True)})
    parts = [sky(spec, part, part.brickid in empty) for part in (brick(*where) for where in near)]
    catalog = np.concatenate(parts)
    x, y = wcs.all_world2pix(catalog["ra"], catalog["dec"], 0)
    reach = (x > -MARGIN) & (x < BRICK_PIXELS + MARGIN) & (y > -MARGIN) & (y < BRICK_PIXELS + MARGIN)
    return catalog[reach], x[reach], y[reach]


def _write_band(folder: Path, spec: MockSpec, area: Brick, band: tuple[str, BandPixels]) -> None:
    name, products = band
    for product in ("image", "invvar", "nexp", "psfsize"):
        header = image_header(spec, area, product, name)
        label = f"{product.upper()}_{name}" if spec.style.extension_names else ""
        # DR8's inverse variances were dithered: they dip below zero
        settings = "invvar-dr8" if product == "invvar" and spec.style.two_profiles else product
        hdu = compressed_image(getattr(products, product), header, settings, label)
        save_images(folder / f"legacysurvey-{area.name}-{product}-{name}.fits.fz", [hdu])


def _write_maskbits(folder: Path, spec: MockSpec, area: Brick, mask: NDArray[np.int32]) -> None:
    header = image_header(spec, area, "maskbits", "")
    add_bits(header, spec.like, table=False)
    hdus = [compressed_image(mask.astype(spec.style.mask_type), header, "maskbits", "MASKBITS")]
    blank = np.zeros((BRICK_PIXELS, BRICK_PIXELS), np.uint8)
    hdus += [compressed_image(blank, fits.Header(), "maskbits", label) for label in ("WISEM1", "WISEM2")]
    save_images(folder / f"legacysurvey-{area.name}-maskbits.fits.fz", hdus)


def _write_tractor(path: Path, frame: Frame, fitted: Fit) -> None:
    spec, rows = frame.spec, len(fitted.source)
    columns = []
    for column in tractor_columns(spec.style, spec.band_list):
        values = fitted.columns.get(column.name)
        length = int(column.form[:-1] or 1) if not column.form.endswith("A") else 1
        array = values if values is not None else np.zeros((rows, length) if length > 1 else rows)
        columns.append(fits.Column(column.name, column.form, unit=column.unit or None, array=array))
    table = fits.BinTableHDU.from_columns(columns)
    primary = fits.PrimaryHDU(header=base_header(spec, frame.area))
    add_bits(primary.header, spec.like, table=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([primary, table]).writeto(path, overwrite=True)


def _write_tables(out: Path, spec: MockSpec, totals: list[Totals]) -> None:
    tree = out / spec.region
    write_gzip_table(out / "survey-bricks.fits.gz", root_table())
    write_gzip_table(tree / f"survey-bricks-{spec.like}-{spec.region}.fits.gz", summary_table(spec, totals))
    _write_checksums(out, f"legacysurvey_{spec.like}")
    _write_checksums(tree, f"legacysurvey_{spec.like}_{spec.region}")
    for folder in sorted((tree / "tractor").iterdir()):
        _write_checksums(folder, f"legacysurvey_{spec.like}_{spec.region}_tractor_{folder.name}")


def _write_checksums(folder: Path, name: str) -> None:
    """The list of sha256 sums of a folder's files, two spaces between sum and bare name."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".sha256sum")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / f"{name}.sha256sum").write_text("".join(lines))
