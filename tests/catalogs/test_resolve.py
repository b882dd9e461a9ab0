"""Sources at the edges of bricks: each one published once, whoever fitted it where."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.hats import manifest, publish, version_folder
from catalogs.join import Origin, build_shard
from catalogs.outcomes import SCHEMA, OutcomesMeta, write_outcomes
from catalogs.provenance import record
from catalogs.query import open_catalog
from catalogs.resolve import EdgeSources, decide, edge_sources
from catalogs.shard import ShardMeta, write_shard
from catalogs.verify import verify
from galpipe.layout import Layout
from galpipe.survey.bricks import Brick, brick_at, brick_by_id, brick_by_name
from galpipe.survey.edges import EDGE_REASON
from galpipe.survey.neighbours import EDGE, distance_to_edge, touching
from galpipe.unit import Unit
from tests.catalogs.sky import HEADS, inputs_of, make_predictions, make_sources

ARCSEC = 1 / 3600


@dataclass(frozen=True)
class Fitted:
    """A source as one brick's table has it."""

    ra: float
    dec: float
    reason: str = ""
    """The rule that filtered it; empty for a predicted one."""


def write(layout: Layout, unit: Unit, rows: Mapping[int, Fitted], seed: int = 0) -> None:
    """Shard and outcomes of a brick: objid -> source; what lies just beyond the edge is marked as the cut marks it."""
    area = brick_by_name(unit.brick)
    sources = make_sources(unit, len(rows), seed)
    outcomes = outcomes_of(area, rows, 9010 if unit.region == "south" else 9011)
    write_outcomes(layout.outcomes(unit, "main"), outcomes, OutcomesMeta(unit, fingerprint="f"))
    columns = {name: outcomes[name] for name in ("source_id", "objid", "ra", "dec")}
    columns["brick_primary"] = pc.not_equal(outcomes["reason"], EDGE_REASON)
    for name, values in columns.items():
        sources = sources.set_column(sources.schema.get_field_index(name), name, values)
    chosen = sources.filter(pc.equal(outcomes["status"], "predicted"))
    identifier = record(layout, "main", inputs_of(unit, seed))
    shard = build_shard(chosen, make_predictions(chosen), HEADS, Origin(unit, identifier))
    write_shard(layout.shard(unit, "main"), shard, ShardMeta(unit, "f", identifier, counts={"predicted": shard.num_rows}))


def outcomes_of(area: Brick, rows: Mapping[int, Fitted], release: int = 9010) -> pa.Table:
    """Outcomes of a brick, as the catalog stage writes them."""
    count, objid = len(rows), np.array(list(rows), np.int64)
    ra, dec = (np.array([getattr(item, name) for item in rows.values()], np.float64) for name in ("ra", "dec"))
    beyond = distance_to_edge(area, ra, dec) <= 0
    reasons = [item.reason or (EDGE_REASON if out else "") for item, out in zip(rows.values(), beyond, strict=True)]
    columns = {
        "release": np.full(count, release),
        "brickid": np.full(count, area.brickid),
        "objid": objid,
        "source_id": (np.int64(release) << 42) | (np.int64(area.brickid) << 22) | objid,
        "ra": ra,
        "dec": dec,
        "status": ["filtered" if item.reason else "predicted" for item in rows.values()],
        "reason": reasons,
    }
    return pa.table([pa.array(columns[item.name], item.type) for item in SCHEMA], schema=SCHEMA)


def unit_of(area: Brick) -> Unit:
    """North and south of 32.375 as the plan resolves them."""
    return Unit("dr9", "north" if area.dec > 32.375 else "south", area.name)


def published(layout: Layout) -> list[tuple[str, int]]:
    """(brick, objid) of every published row, sorted."""
    with open_catalog(layout) as catalog:
        rows = catalog.sql("SELECT brickid, objid, brickname FROM galaxies").to_pylist()
    return sorted((row["brickname"], row["objid"]) for row in rows)


WEST, EAST = brick_by_name("3598p322"), brick_by_name("0001p322")
"""On either side of RA 0."""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "root")


def both(layout: Layout, west: Mapping[int, Fitted], east: Mapping[int, Fitted]) -> list[tuple[str, int]]:
    write(layout, unit_of(WEST), west)
    write(layout, unit_of(EAST), east)
    publish(layout, "main")
    assert verify(layout, "main") == []
    return published(layout)


DEC = 32.25
JUST_WEST, JUST_EAST = 360 - 0.01 * ARCSEC, 0.01 * ARCSEC


def test_primary_in_both_is_published_from_the_lower_brickid(layout: Layout) -> None:
    found = both(layout, {1: Fitted(JUST_WEST, DEC)}, {7: Fitted(JUST_EAST, DEC)})
    assert WEST.brickid > EAST.brickid
    assert found == [(EAST.name, 7)]
    with open_catalog(layout) as catalog:
        (row,) = catalog.sql("SELECT * FROM resolved").to_pylist()
    assert (row["reason"], row["source_id"] & 0x3FFFFF, row["kept"] & 0x3FFFFF) == ("duplicate", 1, 7)
    assert manifest(version_folder(layout, "main"))["resolved"] == {"duplicate": 1}


def test_primary_in_neither_is_rescued_once(layout: Layout) -> None:
    assert both(layout, {1: Fitted(JUST_EAST, DEC)}, {7: Fitted(JUST_WEST, DEC)}) == [(EAST.name, 7)]
    told = manifest(version_folder(layout, "main"))
    assert (told["resolved"], told["rows"]) == ({"neighbour": 1, "rescued": 1}, 1)


def test_primary_in_one_is_that_one_s(layout: Layout) -> None:
    assert both(layout, {1: Fitted(JUST_WEST, DEC)}, {7: Fitted(JUST_WEST, DEC)}) == [(WEST.name, 1)]


def test_the_owner_s_rules_decide(layout: Layout) -> None:
    """Fainter than the limit by the fit of the brick that it belongs to."""
    assert both(layout, {1: Fitted(JUST_WEST, DEC, "faint"), 2: Fitted(359.9, DEC)}, {7: Fitted(JUST_WEST, DEC)}) == [(WEST.name, 2)]
    # two that call it their own: one has it
    assert both(layout, {1: Fitted(JUST_WEST, DEC, "faint")}, {7: Fitted(JUST_EAST, DEC)}) == [(EAST.name, 7)]


def test_a_source_that_only_the_other_table_has_is_rescued(layout: Layout) -> None:
    west = {1: Fitted(359.9, DEC)}
    assert both(layout, west, {7: Fitted(JUST_WEST, DEC)}) == [(EAST.name, 7), (WEST.name, 1)]


def test_a_brick_that_was_not_done_keeps_its_sources(layout: Layout) -> None:
    """They come with it, whichever is done first."""
    write(layout, unit_of(EAST), {7: Fitted(JUST_WEST, DEC), 8: Fitted(JUST_EAST, DEC + 0.01)})
    publish(layout, "main")
    assert published(layout) == [(EAST.name, 8)]
    write(layout, unit_of(WEST), {1: Fitted(JUST_EAST, DEC)})
    publish(layout, "main")
    assert published(layout) == [(EAST.name, 7), (EAST.name, 8)]


def test_two_sources_on_either_side_are_two(layout: Layout) -> None:
    """Closer together than `EDGE`, each in both tables."""
    near, far = Fitted(360 - 0.15 * ARCSEC, DEC), Fitted(0.15 * ARCSEC, DEC)
    assert both(layout, {1: near, 2: far}, {5: near, 6: far}) == [(EAST.name, 6), (WEST.name, 1)]


def test_another_release_is_another_sky(layout: Layout) -> None:
    write(layout, Unit("dr10", "south", WEST.name), {1: Fitted(JUST_WEST, DEC)})
    write(layout, Unit("dr9", "south", EAST.name), {7: Fitted(JUST_EAST, DEC)})
    publish(layout, "main")
    assert len(published(layout)) == 2


def test_regions_of_a_union_of_releases_are_one_sky(layout: Layout) -> None:
    """DR10 in the south, DR9 in the north: two releases, one source on the line between them."""
    north = brick_by_name("0001p325")
    write(layout, Unit("dr10", "south", EAST.name), {7: Fitted(0.1, 32.375 - 0.01 * ARCSEC)})
    write(layout, Unit("dr9", "north", north.name), {1: Fitted(0.1, 32.375 + 0.01 * ARCSEC)})
    publish(layout, "main")
    assert published(layout) == [(EAST.name, 7)]


def test_only_partitions_that_a_changed_neighbour_concerns_are_written_again(layout: Layout) -> None:
    """The east brick's rows lie in other partitions than the west's, and are decided again when the west changes."""
    both(layout, {1: Fitted(359.9, DEC)}, {7: Fitted(JUST_EAST, DEC), 8: Fitted(0.2, DEC)})
    far = brick_by_name("1126p222")
    write(layout, unit_of(far), {1: Fitted(far.ra, far.dec)})
    before = publish(layout, "main")
    assert (before.partitions_written, before.resolved) == (1, {})
    assert publish(layout, "main").status == "unchanged"
    # what is not predicted decides too
    write(layout, unit_of(WEST), {1: Fitted(359.9, DEC), 2: Fitted(JUST_WEST, DEC + 0.001, "faint")})
    after = publish(layout, "main")
    assert (after.status, after.partitions_linked) == ("published", 1)


CORNERS = [
    (0.0, 32.375),
    (0.0, -0.125),
    (EAST.ra2, 32.125),
    (EAST.ra2, 32.375),
    (0.0, 80.125),
    (36.0, 89.875),
    (0.0, -89.875),
    (112.5, 89.625),
]
"""Points where three bricks or more meet, across RA 0, across north and south, at the polar caps."""


def offsets() -> st.SearchStrategy[list[tuple[float, float]]]:
    """Arcsec east and north of a corner."""
    near = st.floats(-6, 6)
    return st.lists(st.tuples(near, near), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(CORNERS), offsets(), st.integers(0, 2**32))
def test_each_source_once_around_a_corner_whatever_the_errors(
    corner: tuple[float, float], spots: list[tuple[float, float]], seed: int
) -> None:
    """Every frame fits every source with an error of its own; sources lie further apart than errors."""
    random = np.random.default_rng(seed)
    kept: list[tuple[float, float]] = []
    for spot in spots:
        if all(np.hypot(spot[0] - x, spot[1] - y) > 1.5 for x, y in kept):
            kept.append(spot)
    # rows have other widths: a source near the corner may lie in a brick that does not touch the corner's own
    owners = [brick_at((corner[0] + x * ARCSEC / np.cos(np.radians(corner[1]))) % 360, corner[1] + y * ARCSEC) for x, y in [(0, 0), *kept]]
    bricks = sorted({area for owner in owners for area in (owner, *touching(owner))}, key=lambda item: item.brickid)
    edges, listed = [], []
    for area in bricks:
        rows = {}
        for objid, (east, north) in enumerate(kept):
            dx, dy = np.array([east, north]) + random.uniform(-0.17, 0.17, 2)
            dec = corner[1] + dy * ARCSEC
            ra = (corner[0] + dx * ARCSEC / np.cos(np.radians(dec))) % 360
            distance = distance_to_edge(area, np.array([ra]), np.array([dec]))[0]
            if distance > -20:
                rows[objid] = Fitted(ra, dec, "" if distance > -EDGE else "not_primary")
        table = outcomes_of(area, rows)
        listed.append(table.filter(pc.equal(table["status"], "predicted"))["source_id"].to_pylist())
        edges.append(edge_sources(table, area))
    shown: list[int] = []
    for here, predicted in zip(edges, listed, strict=True):
        verdicts = decide(here, [other for other in edges if other is not here and brick_by_id(other.brickid) in near_to(here)])
        gone = {source for source, (_, reason) in verdicts.items() if reason != "rescued"}
        shown += [source & 0x3FFFFF for source in predicted if source not in gone]
    assert sorted(shown) == list(range(len(kept)))


def near_to(edge: EdgeSources) -> tuple[Brick, ...]:
    return touching(brick_by_id(edge.brickid))


def test_touching_is_enough(layout: Layout) -> None:
    """Every pair of bricks around a corner knows of the other."""
    for corner in CORNERS:
        near = {brick_at((corner[0] + dx) % 360, corner[1] + dy) for dx, dy in itertools.product((-1e-6, 1e-6), repeat=2)}
        assert len(near) >= 2
        assert all(other in touching(area) for area, other in itertools.permutations(near, 2))
