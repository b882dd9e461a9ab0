"""A published catalog with stamps, served by a real HTTP server on a free port."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest

from catalogs.hats import publish
from catalogs.provenance import provenance_id
from catalogs.serve.limits import Limits
from catalogs.serve.server import Address, listen, make_server, url_of
from catalogs.serve.service import Service
from catalogs.stampindex import store_of
from galpipe.config import SOFTENING, CutSettings
from galpipe.layout import Layout
from galpipe.stamps.result import OUTCOMES, CutResult
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.store import write_store
from galpipe.survey.bricks import brick_by_name, brick_wcs
from galpipe.unit import Unit
from tests.catalogs.sky import inputs_of, make_sources, write_brick

EAST, WEST, POLE, BARE = (Unit("dr9", "south", name) for name in ("0001p000", "3598p000", "1800p900", "0003p000"))
"""Two bricks on either side of RA 0, the one at the north pole, and one whose stamps were not kept."""

ROWS, SIZE = 30, 24
CUT = CutSettings()
"""What the records of fake bricks say; their stamps are smaller, to be quick."""


def stamps_of(unit: Unit) -> StampSet:
    """Stamps of a brick's sources where the brick's projection has them, with random pixels, the last band of the last one empty."""
    sources = make_sources(unit, ROWS)
    wcs = brick_wcs(brick_by_name(unit.brick))
    x, y = wcs.all_world2pix(sources["ra"].to_numpy(), sources["dec"].to_numpy(), 0)
    for name, values in (("stamp_dx", x - np.floor(x + 0.5)), ("stamp_dy", y - np.floor(y + 0.5))):
        sources = sources.set_column(sources.column_names.index(name), name, pa.array(values.astype(np.float32)))
    for name, values in (("stamp_x0", x), ("stamp_y0", y)):
        sources = sources.append_column(name, pa.array((np.floor(values + 0.5) - SIZE // 2).astype(np.int32)))
    shares = np.where(np.arange(ROWS) == ROWS - 1, 0.0, 1.0).astype(np.float32)
    sources = sources.set_column(sources.column_names.index("valid_frac_z"), "valid_frac_z", pa.array(shares))
    for band in "griz":
        at = sources.column_names.index(f"mw_transmission_{band}")
        sources = sources.set_column(at, f"mw_transmission_{band}", pa.array(np.linspace(0.7, 0.95, ROWS).astype(np.float32)))
    rng = np.random.default_rng(brick_by_name(unit.brick).brickid)
    shape = (ROWS, 3, SIZE, SIZE)
    cards = {key: value for key, value in wcs.to_header().items() if key in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")}
    cards |= {"CD1_1": -0.262 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.262 / 3600}
    codes, weights = rng.integers(-20000, 20000, shape, np.int16), rng.integers(1, 255, shape, np.uint8)
    mask = rng.choice(np.array([0, 0, 0, 2, 128], np.uint8), (ROWS, SIZE, SIZE))
    softening = tuple(SOFTENING[band] for band in "grz")
    return StampSet(codes, weights, mask, sources, ("g", "r", "z"), 0.262, softening, {"unit": str(unit), "wcs": cards})


def write_stamps(layout: Layout, unit: Unit, fingerprint: str = "") -> None:
    """The store that the brick's rows were predicted from, or one of another fingerprint in its place."""
    found = store_of(layout, "main", unit, provenance_id(inputs_of(unit)))
    assert found is not None
    write_store(found[0], CutResult(stamps_of(unit), OUTCOMES.empty_table()), fingerprint or found[1])


@pytest.fixture(scope="session")
def served_layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("served"))
    for unit in (EAST, WEST, POLE, BARE):
        write_brick(layout, unit, ROWS)
    for unit in (EAST, WEST, POLE):
        write_stamps(layout, unit)
    publish(layout, "main")
    return layout


@contextmanager
def running(service: Service) -> Iterator[str]:
    """The address of a server that runs while the block does."""
    address = Address(port=0)
    with listen(address) as listening:
        server = make_server(service, address)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            deadline = time.monotonic() + 30
            while not server.started and time.monotonic() < deadline:
                time.sleep(0.01)
            assert server.started
            yield url_of(listening)
        finally:
            server.should_exit = True
            thread.join(30)
            service.close()


@pytest.fixture(scope="session")
def url(served_layout: Layout) -> Iterator[str]:
    with running(Service(served_layout, "main", limits=Limits(workers=3))) as address:
        yield address
