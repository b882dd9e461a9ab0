"""Images by pyvo, over HTTP: what is listed touches the region, and what is fetched are the store's pixels."""

from __future__ import annotations

import io
import shutil
import warnings
from pathlib import Path

import httpx
import numpy as np
import pytest
import pyvo
from astropy.coordinates import SkyCoord
from astropy.io import fits, votable
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from PIL import Image
from pyvo.dal.exceptions import DALQueryError

from catalogs.provenance import provenance_id
from catalogs.serve.obscore import OBSCORE
from catalogs.serve.region import Circle, parse_region
from catalogs.serve.service import Service
from galpipe.layout import Layout
from galpipe.stamps.external import read_stamps
from galpipe.stamps.render import to_rgb
from galpipe.stamps.stampset import StampSet
from galpipe.stamps.store import Store
from galpipe.unit import Unit
from tests.catalogs.serve.conftest import CUT, EAST, POLE, SIZE, WEST, running, write_stamps
from tests.catalogs.sky import inputs_of


@pytest.fixture(scope="module")
def kept(served_layout: Layout) -> dict[int, tuple[StampSet, int]]:
    """Every stamp of the stores by source_id."""
    found = {}
    for unit in (EAST, WEST, POLE):
        store = Store(served_layout.stamps(unit, CUT.name))
        stamps = store.rows(range(len(store.sources())))
        found |= {source: (stamps, row) for row, source in enumerate(stamps.sources["source_id"].to_pylist())}
    return found


def apart(stamps: StampSet, row: int, ra: float, dec: float) -> float:
    """Angle in degrees from a position to the nearest of a stamp's pixels, found by looking at a fine grid of points."""
    wcs = stamps.wcs(row)
    assert wcs is not None
    y, x = np.mgrid[-0.5 : SIZE - 0.5 : 97j, -0.5 : SIZE - 0.5 : 97j]
    return float(wcs.pixel_to_world(x, y).separation(SkyCoord(ra, dec, unit="deg")).deg.min())


@pytest.mark.parametrize(
    ("ra", "dec", "radius"), [(0.1, 0.05, 0.05), (0.0, 0.0, 0.08), (359.99, 0.0, 0.1), (30.0, 90.0, 0.05), (30.0, 89.93, 0.03)]
)
def test_a_search_lists_the_stamps_that_touch_the_circle(
    url: str, kept: dict[int, tuple[StampSet, int]], ra: float, dec: float, radius: float
) -> None:
    found = pyvo.dal.SIA2Service(url).search(pos=(ra, dec, radius))
    reach = {source: apart(stamps, row, ra, dec) for source, (stamps, row) in kept.items()}
    sure, never = ({source for source, angle in reach.items() if angle <= radius + step} for step in (0, 1e-4))
    assert sure <= {int(record["obs_id"]) for record in found} <= never and sure


def test_a_galaxy_outside_is_listed_when_its_stamp_reaches_in(url: str, kept: dict[int, tuple[StampSet, int]]) -> None:
    source, (stamps, row) = next(iter(kept.items()))
    wcs = stamps.wcs(row)
    assert wcs is not None
    for x, listed in ((SIZE - 1.5, True), (SIZE + 1.5, False)):
        place = wcs.pixel_to_world(x, SIZE / 2)
        found = pyvo.dal.SIA2Service(url).search(pos=(place.ra.deg, place.dec.deg, 1e-5))
        assert (str(source) in [record["obs_id"] for record in found]) is listed


def test_range_and_polygon(url: str, kept: dict[int, tuple[StampSet, int]]) -> None:
    """Over RA 0: inside of both are the stamps whose middle lies within, and none further off than its half diagonal."""
    half = SIZE * 0.262 / 3600
    service = pyvo.dal.SIA2Service(url)
    for query in ({"POS": "RANGE 359.9 0.12 -0.05 0.08"}, {"POS": "POLYGON 359.9 -0.05 0.12 -0.05 0.12 0.08 359.9 0.08"}):
        found = {int(record["obs_id"]) for record in service.search(**query)}
        position = {source: [stamps.sources[name][row].as_py() for name in ("ra", "dec")] for source, (stamps, row) in kept.items()}
        offsets = {source: ((ra + 180) % 360 - 180, dec) for source, (ra, dec) in position.items()}

        def inside(margin: float, offsets: dict[int, tuple[float, float]] = offsets) -> set[int]:
            low, high = (-0.1 - margin, -0.05 - margin), (0.12 + margin, 0.08 + margin)
            return {source for source, (x, y) in offsets.items() if low[0] <= x <= high[0] and low[1] <= y <= high[1]}

        assert inside(0) and inside(0) <= found <= inside(half)


def test_a_cap_around_the_pole(url: str, kept: dict[int, tuple[StampSet, int]]) -> None:
    found = {int(record["obs_id"]) for record in pyvo.dal.SIA2Service(url).search(POS="RANGE 0 360 89.95 +Inf", maxrec=1000)}
    inside = {source for source, (stamps, row) in kept.items() if stamps.sources["dec"][row].as_py() >= 89.95}
    assert inside and inside <= found
    assert all(stamps.sources["dec"][row].as_py() > 89.94 for stamps, row in (kept[source] for source in found))


def test_the_outline_is_that_of_the_stamp(url: str, kept: dict[int, tuple[StampSet, int]]) -> None:
    record = pyvo.dal.SIA2Service(url).search(pos=(0.0, 90.0, 0.1))[0]
    stamps, row = kept[int(record["obs_id"])]
    wcs = stamps.wcs(row)
    assert wcs is not None
    corners = np.array(record["s_region"].removeprefix("POLYGON ICRS ").split(), float).reshape(-1, 2)
    expected = wcs.pixel_to_world([-0.5, SIZE - 0.5, SIZE - 0.5, -0.5], [-0.5, -0.5, SIZE - 0.5, SIZE - 0.5])
    assert SkyCoord(corners, unit="deg").separation(expected).arcsec.max() < 1e-3
    assert Circle(record["s_ra"], record["s_dec"], 1e-6).touches(corners[None])[0]


def test_columns_are_those_of_obscore(url: str) -> None:
    content = httpx.get(f"{url}sia?POS=CIRCLE 0.1 0.05 0.1").content
    tree = votable.parse(io.BytesIO(content), verify="exception")
    table = tree.get_first_table()
    assert [item.name for item in table.fields] == OBSCORE.names
    assert all(item.description for item in table.fields)
    row = table.to_table()[0]
    assert (row["dataproduct_type"], row["calib_level"], row["obs_collection"], row["access_format"]) == (
        "image",
        3,
        "dr9/south",
        "image/fits",
    )
    assert row["s_xel1"] == SIZE and row["s_fov"] == pytest.approx(SIZE * 0.262 * 2**0.5 / 3600)
    assert row["em_min"] == 398e-9 and row["em_max"] in (716e-9, 1002e-9)
    assert tree.resources[1].utype == "adhoc:service"


def test_the_file_holds_the_pixels_of_the_store(url: str, kept: dict[int, tuple[StampSet, int]]) -> None:
    for record in pyvo.dal.SIA2Service(url).search(pos=(0.0, 0.0, 0.05)):
        stamps, row = kept[int(record["obs_id"])]
        content = record.getdataset().read()
        with warnings.catch_warnings(), fits.open(io.BytesIO(content), checksum=True) as hdus:
            warnings.simplefilter("error", AstropyUserWarning)
            assert [hdu.verify_checksum() for hdu in hdus] == [1, 1, 1]
            header = hdus[0].header
            assert np.array_equal(hdus[0].data, stamps.observed_flux(row)) and header["BUNIT"] == "nanomaggy" and header["BANDS"] == "grz"
            transmission = np.array([stamps.transmission(band)[row] for band in "grz"])
            assert np.allclose(hdus["INVVAR"].data, stamps.invvar()[row] / transmission[:, None, None] ** 2, rtol=1e-6)
            assert np.array_equal(hdus["MASK"].data, stamps.mask[row]) and hdus["MASK"].header["MBIT_1"] == "r"
            assert np.allclose(hdus[0].data / [[[header[f"MWT_{band}"]]] for band in "GRZ"], stamps.flux(row), rtol=1e-6)
            told = [header[name] for name in ("SRC_ID", "RELEASE", "REGION", "PROVID", "CATALOG", "CATVERS", "CUTNAME")]
            made_from = provenance_id(inputs_of(Unit("dr9", "south", header["BRICK"])))
            assert told == [int(record["obs_id"]), "dr9", "south", made_from, "main", 1, CUT.name]
            x, y = WCS(hdus["INVVAR"].header, naxis=2).world_to_pixel(SkyCoord(record["s_ra"], record["s_dec"], unit="deg"))
            assert (x, y) == pytest.approx(
                (SIZE // 2 + stamps.sources["stamp_dx"][row].as_py(), SIZE // 2 + stamps.sources["stamp_dy"][row].as_py()), abs=1e-3
            )


def test_the_file_is_a_stamp_that_galpipe_reads(url: str, kept: dict[int, tuple[StampSet, int]], tmp_path: Path) -> None:
    source = next(iter(kept))
    path = tmp_path / "stamp.fits"
    path.write_bytes(httpx.get(f"{url}stamps/{source}.fits").content)
    back = next(read_stamps([path]))
    assert isinstance(back, StampSet)
    middle = slice(back.size // 2 - 4, back.size // 2 + 4)
    stamps, row = kept[source]
    mine = slice(SIZE // 2 - 4, SIZE // 2 + 4)
    good = stamps.valid()[row, 0, mine, mine] & back.valid()[0, 0, middle, middle]
    assert good.any()
    assert np.allclose(back.flux(0)[0, middle, middle][good], stamps.observed_flux(row)[0, mine, mine][good], rtol=1e-3, atol=1e-5)


def test_the_picture_is_the_stamp(url: str, kept: dict[int, tuple[StampSet, int]]) -> None:
    record = pyvo.dal.SIA2Service(url).search(pos=(0.0, 0.0, 0.05), res_format="image/png")[0]
    assert record["access_format"] == "image/png"
    stamps, row = kept[int(record["obs_id"])]
    with Image.open(io.BytesIO(record.getdataset().read())) as picture:
        assert np.array_equal(np.asarray(picture), to_rgb(stamps.observed_flux(row), stamps.bands))


@pytest.mark.parametrize(("ra", "radius_pixels"), [(0.0, 5.0), (0.0, 0.2)])
def test_a_cutout_is_the_part_within_the_circle(url: str, kept: dict[int, tuple[StampSet, int]], ra: float, radius_pixels: float) -> None:
    record = pyvo.dal.SIA2Service(url).search(pos=(ra, 0.0, 0.08))[0]
    stamps, row = kept[int(record["obs_id"])]
    center = stamps.wcs(row).pixel_to_world(9.0, 14.0)  # type: ignore[union-attr]
    circle = (center.ra.deg, center.dec.deg, radius_pixels * 0.262 / 3600)
    with fits.open(io.BytesIO(record.processed(circle=circle).read())) as hdus:
        reach = int(radius_pixels)
        expected = stamps.observed_flux(row)[:, 14 - reach : 15 + reach, 9 - reach : 10 + reach]
        assert np.array_equal(hdus[0].data, expected)
        x, y = WCS(hdus[0].header, naxis=2).world_to_pixel(center)
        assert (x, y) == pytest.approx((reach, reach), abs=1e-3)


def test_cutouts_beside_the_stamp_are_empty_and_wrong_ones_refused(url: str, kept: dict[int, tuple[StampSet, int]]) -> None:
    source = next(iter(kept))
    assert httpx.get(f"{url}cutout?ID={source}&CIRCLE=90 45 0.01").status_code == 204
    assert httpx.get(f"{url}cutout?ID=ivo://galpipe/main?{source}").content == httpx.get(f"{url}stamps/{source}.fits").content
    for query, reason in (
        ("", "ID"),
        ("ID=x", "ID"),
        (f"ID={source}&CIRCLE=1 2", "a circle 'ra dec radius'"),
        (f"ID={source}&POS=RANGE 0 1 0 1", "POS=CIRCLE"),
        (f"ID={source}&BAND=1e-7", "CIRCLE"),
        (f"ID={source}&CIRCLE=0 0 0", "a radius above 0"),
    ):
        answer = httpx.get(f"{url}cutout?{query}")
        assert answer.status_code == 400 and answer.text.startswith("UsageError") and reason in answer.text


def test_other_parameters_leave_stamps_out(url: str) -> None:
    service = pyvo.dal.SIA2Service(url)
    place = (0.1, 0.0, 0.2)
    all_of_them = {record["obs_id"] for record in service.search(pos=place)}
    without_z = {record["obs_id"] for record in service.search(pos=place) if record["bands"] == "gr"}
    assert without_z and {record["obs_id"] for record in service.search(pos=place, band=(9e-7, 9.1e-7))} == all_of_them - without_z
    assert {record["obs_id"] for record in service.search(pos=place, collection="dr9/south")} == all_of_them
    assert len(service.search(pos=place, band=(2e-6, 3e-6))) == len(service.search(pos=place, TIME="50000 60000")) == 0
    one = next(iter(all_of_them))
    assert [record["obs_id"] for record in service.search(pos=place, target_name=one)] == [one]
    assert [record["obs_id"] for record in service.search(publisher_did=f"ivo://galpipe/main?{one}")] == [one]


def test_an_answer_that_was_cut_off_says_so(url: str) -> None:
    whole = pyvo.dal.SIA2Service(url).search(pos=(0.1, 0.0, 0.2))
    content = httpx.get(f"{url}sia?POS=CIRCLE 0.1 0 0.2&MAXREC=2").content
    assert [info.value for info in votable.parse(io.BytesIO(content)).resources[0].infos if info.name == "QUERY_STATUS"] == [
        "OK",
        "OVERFLOW",
    ]
    assert list(votable.parse(io.BytesIO(content)).get_first_table().array["obs_id"]) == [record["obs_id"] for record in whole][:2]
    assert len(votable.parse(io.BytesIO(httpx.get(f"{url}sia?MAXREC=0").content)).get_first_table().array) == 0


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "POS or ID"),
        ("POS=CIRCLE 1 2", "CIRCLE ra dec radius"),
        ("POS=CIRCLE 1 95 0.1", "Dec: a number from -90 to 90"),
        ("POS=CIRCLE 1 2 3", "radius: a number from 0 to 1"),
        ("POS=RANGE 0 360 -90 90", "a region within a circle of 1 deg radius"),
        ("POS=RANGE 1 2 3 x", "Dec: a number"),
        ("POS=POLYGON 0 0 1 1", "of 3 to 64 corners"),
        ("POS=POLYGON 0 0 20 0 20 20", "a region within a circle of 1 deg radius"),
        ("POS=../../etc/passwd", "CIRCLE ra dec radius"),
        ("POS=CIRCLE 1 2 0.1&BAND=2 1", "BAND: a number, or an interval"),
        ("POS=CIRCLE 1 2 0.1&FORMAT=image/jpeg", "FORMAT: one of"),
        ("ID=99999999999999999999", "ID: an obs_publisher_did"),
    ],
)
def test_a_wrong_request_is_told(url: str, query: str, reason: str) -> None:
    answer = httpx.get(f"{url}sia?{query}")
    tree = votable.parse(io.BytesIO(answer.content), verify="exception")
    assert answer.status_code == 400
    assert reason in tree.resources[0].infos[0].content and tree.resources[0].infos[0].value == "ERROR"


def test_pyvo_raises_what_the_service_told(url: str) -> None:
    with pytest.raises(DALQueryError, match="radius: a number from 0 to 1"):
        pyvo.dal.SIA2Service(url).search(pos=(1.0, 2.0, 5.0))


def test_regions_find_touching_footprints_by_their_edges_alone() -> None:
    """A thin polygon that crosses a footprint without a corner of either in the other, and a circle that only reaches an edge."""
    square = np.array([[[10.0, 10.0], [10.1, 10.0], [10.1, 10.1], [10.0, 10.1]]])
    thin = parse_region("POLYGON 9.9 10.05 10.2 10.049 10.2 10.051", 1.0)
    assert thin.touches(square)[0] and not parse_region("POLYGON 9.9 10.25 10.2 10.249 10.2 10.251", 1.0).touches(square)[0]
    assert Circle(10.05, 10.2, 0.1005).touches(square)[0] and not Circle(10.05, 10.2, 0.0995).touches(square)[0]
    assert Circle(10.05, 10.05, 1e-7).touches(square)[0]
    assert not Circle(190.05, -10.05, 1.0).touches(square)[0]


def test_stamps_that_were_cut_again_are_not_passed_off_as_the_row_s(
    served_layout: Layout, kept: dict[int, tuple[StampSet, int]], tmp_path: Path
) -> None:
    shutil.copytree(served_layout.root, tmp_path / "root", symlinks=True)
    layout = Layout(tmp_path / "root")
    write_stamps(layout, EAST, "of other settings")
    with running(Service(layout, "main")) as url:
        found = pyvo.dal.SIA2Service(url).search(pos=(0.0, 0.0, 0.05))
        own = [source for source, (stamps, _) in kept.items() if stamps.attrs["unit"] == str(EAST)]
        assert len(found) and not {int(item) for item in found["obs_id"]} & set(own)
        answer = httpx.get(f"{url}stamps/{own[0]}.fits", timeout=30)
        assert answer.status_code == 404 and "cut again since" in answer.text
