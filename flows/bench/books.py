"""Each source once: nine mock bricks across RA 0 and across north and south, with hard cases, against their truth."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from catalogs.hats import publish
from catalogs.query import open_catalog
from catalogs.verify import verify
from flows.bench.brick import MODEL
from flows.bench.figures import Figure, Size
from galpipe.code_version import code_version
from galpipe.config import FetchSettings, SelectionSettings, Settings
from galpipe.layout import Layout
from galpipe.lvm.registry import model_folder
from galpipe.lvm.weights import model_hash
from galpipe.mock.release import make_release
from galpipe.mock.sky import Catalog, brick_sky
from galpipe.mock.spec import MockSpec
from galpipe.survey.bricks import brick_by_name, ids_at
from galpipe.survey.edges import select_with_edges
from galpipe.survey.plan import make_plan
from galpipe.survey.releases import open_release
from galpipe.survey.remote import Limiter
from galpipe.survey.tractor import read_tractor, tractor_subset
from galpipe.unit import Unit
from tasks.catalog import predict_unit
from tasks.context import RunContext
from tasks.cut import cut_unit
from tasks.fetch import fetch_unit

NEAR = 0.3
"""Arcsec within which a row is of a true galaxy; the mock keeps galaxies that the fitter tells apart further away."""

PER_BRICK, ON_EDGES = 80, 60


@dataclass(frozen=True)
class Table:
    """The rows of one Tractor table: positions (deg), the brick's own ones, and those that the selection would take if they were."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    primary: NDArray[np.bool_]
    selectable: NDArray[np.bool_]


def spec() -> MockSpec:
    """Most galaxies lie on edges; one brick lacks r, one has stars only, those of the overlap are seen by both cameras."""
    return MockSpec(
        bricks=9,
        seed=11,
        center=(359.8, 32.2),
        regions=("south", "north"),
        galaxies=PER_BRICK,
        faint=0,
        stars=30,
        edge_galaxies=ON_EDGES,
        missing_bands=((4, "r"),),
        empty_bricks=(8,),
    )


def run(size: Size) -> list[Figure]:
    """Write the bricks, take them from files to a published version, and compare that with the truth.

    Raises
    ------
    RuntimeError
        If a stage fails or the catalog does not verify.
    """
    with tempfile.TemporaryDirectory(prefix="galpipe-bench-") as place:
        root, wanted = Path(place), spec()
        make_release(root / "mock-dr9", wanted)
        tables, (ra, dec) = _processed(root)
    return compare(wanted, tables, (ra, dec))


def compare(wanted: MockSpec, tables: list[Table], published: tuple[NDArray[np.float64], NDArray[np.float64]]) -> list[Figure]:
    """Count true galaxies of the block by how often they are published."""
    empty = {wanted.brick_list()[number].brickid for number in wanted.empty_bricks}
    true = np.concatenate([brick_sky(wanted, area, area.brickid in empty) for area in wanted.brick_list()])
    true = true[true["kind"] != "star"]
    shown = _count(true, *published)
    selectable = _total(true, [(item, item.selectable) for item in tables])
    # by the fit of the brick that owns it, it is too faint or no galaxy: the rule decides, nothing is lost
    ruled_out = _total(true, [(item, item.primary & ~item.selectable) for item in tables])
    block = [area.brickid for area in wanted.brick_list()]
    beyond = _total(true, [(item, ~np.isin(ids_at(item.ra, item.dec), block)) for item in tables])
    alone = _total(true, [(item, item.primary & item.selectable) for item in tables])
    known = (selectable > 0) & (beyond == 0)
    lost = known & (shown == 0) & (ruled_out == 0)
    return [
        Figure("lost", float(lost.sum()), "sources", f"of {int(known.sum())} galaxies that some Tractor table has; none published"),
        Figure("doubled", float((shown > 1).sum()), "sources", "published more than once"),
        Figure("primary_alone", float((known & (alone != 1)).sum()), "sources", "lost or doubled by brick_primary alone"),
    ]


def _total(true: Catalog, rows: list[tuple[Table, NDArray[np.bool_]]]) -> NDArray[np.int64]:
    """Chosen rows of all tables near each true galaxy."""
    return _count(true, *(np.concatenate([getattr(item, name)[chosen] for item, chosen in rows]) for name in ("ra", "dec")))


def _count(true: Catalog, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows near each true galaxy."""
    if not len(ra):
        return np.zeros(len(true), np.int64)
    distance, nearest = cKDTree(_unit(true["ra"], true["dec"])).query(_unit(ra, dec))
    close = np.asarray(nearest, np.int64)[np.asarray(distance) < np.radians(NEAR / 3600)]
    return np.bincount(close, minlength=len(true)).astype(np.int64)


def _unit(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    across, up = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(up) * np.cos(across), np.cos(up) * np.sin(across), np.sin(up)], axis=1)


def _processed(root: Path) -> tuple[list[Table], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Tractor tables of the plan's bricks, and the positions that are published."""
    settings = Settings(fetch=FetchSettings(bands=("g", "r", "z")))
    folder = model_folder(MODEL, root / "models")
    context = RunContext(root, "bench", "bench", settings, folder, model_hash(folder), code_version())
    release, tables = open_release(str(root / "mock-dr9"), "mock-dr9", settings.fetch), []
    for unit in make_plan(release, "all", settings.fetch).units:
        fetched = fetch_unit(context, release, unit, Limiter(2))
        for receipt in (fetched, cut_unit(context, unit), predict_unit(context, unit)):
            if receipt.status != "done":
                raise RuntimeError(receipt.reason)
        tables.append(_table(context.layout, unit, settings.fetch.bands))
    publish(context.layout, "bench")
    if problems := verify(context.layout, "bench"):
        raise RuntimeError(f"{problems[0]}")
    with open_catalog(context.layout, "bench") as catalog:
        rows = catalog.sql("SELECT ra, dec FROM galaxies")
    return tables, (rows["ra"].to_numpy(), rows["dec"].to_numpy())


def _table(layout: Layout, unit: Unit, bands: tuple[str, ...]) -> Table:
    area = brick_by_name(unit.brick)
    sources = tractor_subset(read_tractor(layout.brick_folder(unit) / f"tractor-{unit.brick}.fits", unit))
    place = sources.schema.get_field_index("brick_primary")
    everywhere = sources.set_column(place, "brick_primary", pa.array(np.ones(len(sources), bool)))
    selectable = select_with_edges(everywhere, SelectionSettings(), bands, area)[0] == ""
    primary = sources["brick_primary"].to_numpy(zero_copy_only=False).astype(bool)
    return Table(sources["ra"].to_numpy(), sources["dec"].to_numpy(), primary, selectable)
