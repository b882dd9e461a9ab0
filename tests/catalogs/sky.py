"""Small fake bricks with the columns that the survey and the heads give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from catalogs import outcomes
from catalogs.join import Origin, build_shard
from catalogs.outcomes import OutcomesMeta
from catalogs.provenance import provenance_id, record
from catalogs.schema import OPTICAL
from catalogs.shard import ShardMeta, write_shard
from galpipe.columns import Column
from galpipe.config import Settings
from galpipe.layout import Layout
from galpipe.survey.bricks import brick_by_name
from galpipe.survey.tractor import subset_schema
from galpipe.unit import Unit

DETECTION = pa.struct(
    [("ra", pa.float64()), ("dec", pa.float64()), ("score", pa.float32()), ("objid", pa.int32()), ("is_primary_detection", pa.bool_())]
)

HEADS = (
    Column("smooth-or-featured_smooth_fraction", pa.float32(), "", "Share of volunteers", 1e-3, "mapped"),
    Column("smooth-or-featured_featured-or-disk_fraction", pa.float32(), "", "Share of volunteers", 1e-3, "mapped"),
    Column("smooth-or-featured_artifact_fraction", pa.float32(), "", "Share of volunteers", 1e-3, "mapped"),
    Column("smooth-or-featured_proportion_asked", pa.float32(), "", "Share of volunteers asked", 1e-3, "mapped"),
    Column("mag_model_r", pa.float32(), "mag", "Magnitude", 1e-3, "mock only"),
    Column("z_mock", pa.float32(), "", "Mock redshift", 1e-3, "mock only"),
    Column("z_mock_pdf", pa.list_(pa.float16(), 4), "", "Mock redshift, probability per bin", 1e-2, "mock only"),
    Column("detections", pa.list_(DETECTION), "", "Objects in the stamp", 1e-2, "mock only"),
)

UNITS = tuple(Unit("dr9", "south", name) for name in ("0001m002", "0003m002", "0001p000"))
FAR = Unit("dr9", "north", "1801p400")


def make_sources(unit: Unit, rows: int, seed: int = 0) -> pa.Table:
    """Tractor subset and stamp columns of the first ``rows`` objects of a brick."""
    brick = brick_by_name(unit.brick)
    random = np.random.default_rng([seed, brick.brickid])
    table = {item.name: _values(item, rows, random) for item in subset_schema()}
    release = 9011 if unit.region == "south" else 9010
    objid = np.arange(rows)
    table |= {
        "source_id": pa.array((np.int64(release) << 42) | (np.int64(brick.brickid) << 22) | objid, pa.int64()),
        "release": pa.array(np.full(rows, release), pa.int32()),
        "brickid": pa.array(np.full(rows, brick.brickid), pa.int32()),
        "objid": pa.array(objid, pa.int32()),
        "brickname": pa.array([brick.name] * rows, pa.string()),
        "type": pa.array(["SER"] * rows, pa.string()),
        "ra": pa.array(random.uniform(brick.ra1, brick.ra2, rows)),
        "dec": pa.array(random.uniform(brick.dec1, brick.dec2, rows)),
        "maskbits": pa.array(random.choice([0, 0, 0, 2, 1 << 12], rows), pa.int32()),
    }
    table["jpeg_route"] = pa.array(objid % 7 == 3)
    stamp = {"stamp_dx": pa.float32(), "stamp_dy": pa.float32(), "pixscale": pa.float32()}
    stamp |= {f"{quantity}_{band}": pa.float32() for quantity in ("valid_frac", "nexp") for band in OPTICAL[:2] + OPTICAL[3:]}
    table |= {name: pa.array(random.uniform(0.5, 1, rows), kind) for name, kind in stamp.items()}
    return pa.table(table)


def _values(item: pa.Field, rows: int, random: np.random.Generator) -> pa.Array:
    if item.name.endswith("_i"):
        return pa.nulls(rows, item.type)
    if pa.types.is_string(item.type):
        return pa.array([""] * rows, pa.string())
    if pa.types.is_boolean(item.type):
        return pa.array([True] * rows, pa.bool_())
    high = 1.0 if item.name.startswith(("frac", "mw_transmission", "shape_e")) or item.name.endswith(("_l68", "_l95")) else 5.0
    return pa.array(random.uniform(high / 5, high, rows)).cast(item.type, safe=False)


def make_predictions(sources: pa.Table, seed: int = 0) -> pa.Table:
    """Answers of `HEADS` and an embedding of 8 numbers."""
    rows = sources.num_rows
    random = np.random.default_rng([seed, 7])
    votes = random.dirichlet([2, 2, 1], rows).astype(np.float32) if rows else np.zeros((0, 3), np.float32)
    table = {column.name: pa.array(votes[:, index]) for index, column in enumerate(HEADS[:3])}
    table["smooth-or-featured_proportion_asked"] = pa.array(np.ones(rows, np.float32))
    table["mag_model_r"] = pa.array(random.uniform(15, 20, rows).astype(np.float32))
    table["z_mock"] = pa.array(random.uniform(0, 1, rows).astype(np.float32))
    pdf = random.dirichlet([1, 1, 1, 1], rows).astype(np.float16).ravel()
    table["z_mock_pdf"] = pa.FixedSizeListArray.from_arrays(pa.array(pdf, pa.float16()), 4)
    found = [[_detection(row, index) for index in range(row % 3)] for row in range(rows)]
    table["detections"] = pa.array(found, pa.list_(DETECTION))
    vectors = random.normal(size=(rows, 8)).astype(np.float16)
    table["embedding"] = pa.array(list(vectors), pa.list_(pa.float16()))
    return pa.table(table)


def _detection(row: int, index: int) -> dict[str, float | int | bool]:
    return {"ra": 0.1 * row, "dec": 0.0, "score": 0.5, "objid": row, "is_primary_detection": index == 0}


def inputs_of(unit: Unit, seed: int = 0) -> dict[str, object]:
    """What a fake brick was made from, as its provenance record says."""
    files = {f"tractor-{unit.brick}.fits": f"{seed:064x}"}
    settings = Settings()
    how = {"cut": asdict(settings.cut), "selection": settings.selection.identity(), "infer": {"batch": settings.infer.batch}}
    return {"unit": str(unit), "files": files, "absent": [], **how, "model": "mini", "code": "fake"}


def make_shard(unit: Unit, rows: int, seed: int = 0, heads: Sequence[Column] = HEADS) -> pa.Table:
    sources = make_sources(unit, rows, seed)
    return build_shard(sources, make_predictions(sources, seed), heads, Origin(unit, provenance_id(inputs_of(unit, seed))))


def make_outcomes(unit: Unit, shard: pa.Table, filtered: int = 3) -> pa.Table:
    """Every shard row selected, and some faint ones filtered."""
    rows = shard.num_rows
    base = int(shard["source_id"][0].as_py()) if rows else 1 << 42
    extra = np.arange(filtered) + base + 100_000
    cut = pa.table(
        {
            "release": pa.array([9011] * (rows + filtered), pa.int32()),
            "brickid": pa.array([brick_by_name(unit.brick).brickid] * (rows + filtered), pa.int32()),
            "objid": pa.array(list(range(rows)) + [100_000 + index for index in range(filtered)], pa.int32()),
            "source_id": pa.chunked_array([shard["source_id"].combine_chunks(), pa.array(extra, pa.int64())]),
            "ra": pa.chunked_array([shard["ra"].combine_chunks(), pa.array(np.zeros(filtered))]),
            "dec": pa.chunked_array([shard["dec"].combine_chunks(), pa.array(np.zeros(filtered))]),
            "status": pa.array(["selected"] * rows + ["filtered"] * filtered),
            "reason": pa.array([""] * rows + ["faint"] * filtered),
        }
    )
    return outcomes.finish(cut, set(shard["source_id"].to_pylist()), unit=unit)


def write_brick(layout: Layout, unit: Unit, rows: int, seed: int = 0, name: str = "main") -> tuple[ShardMeta, str]:
    """Shard, outcomes and provenance of a brick, as the catalog stage writes them."""
    shard = make_shard(unit, rows, seed)
    counts = outcomes.write_outcomes(layout.outcomes(unit, name), make_outcomes(unit, shard), OutcomesMeta(unit, fingerprint=f"f{seed}"))
    identifier = record(layout, name, inputs_of(unit, seed))
    meta = ShardMeta(unit, f"f{seed}", identifier, "mini", {"predicted": counts["predicted"]})
    return write_shard(layout.shard(unit, name), shard, meta)
