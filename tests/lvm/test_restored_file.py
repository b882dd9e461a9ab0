"""Restored stamps as files: the verb, the planes, what the header says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from click.testing import CliRunner

from flows.cli.restore import restore
from galpipe.lvm.model import new_model
from galpipe.lvm.weights import model_hash, save_model
from tests.lvm.toy import TINY
from tests.stamps.test_external import galaxy, header, write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(path, new_model(TINY, 3), {"name": "tiny", "version": "0"}, "# tiny\n")
    return path


def run(arguments: list[str], status: int) -> dict[str, object]:
    done = CliRunner().invoke(restore, [*arguments, "--json"])
    assert done.exit_code == status, done.output
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_a_restored_file_says_what_it_is(tmp_path: Path, model: Path) -> None:
    cube = galaxy(152, 0.262)
    cube[:, 30:40, 100:110] = np.nan
    path = write(tmp_path / "one.fits", cube, header(152, 0.262))
    result = run([str(path), "--out", str(tmp_path / "out"), "--model", str(model)], 0)
    assert result["counts"] == {"restored": 1}
    with fits.open(tmp_path / "out" / "one-restored.fits") as found:
        facts = found[0].header
        assert facts["PURPOSE"] == "for the eye only"
        assert facts["MODEL"] == model_hash(model)
        assert (facts["BANDS"], facts["PSFKN_R"]) == ("grz", False)
        assert facts["PSFOUT_R"] == pytest.approx(0.85 * facts["PSFIN_R"], abs=1e-3)
        planes, sigma, filled = (found[name].data for name in ("RESTORED", "SIGMA", "FILLED"))
        assert planes.shape == sigma.shape == filled.shape == (3, 152, 152)
        assert (sigma > 0).all()
        assert filled[:, 30:40, 100:110].all()
        assert filled.sum() == 300
        assert np.isfinite(planes).all()
        assert planes[1, 70:83, 70:83].sum() == pytest.approx(cube[1, 70:83, 70:83].sum(), rel=0.1)
        sky = WCS(found["RESTORED"].header).celestial.pixel_to_world(76, 76)
        assert (sky.ra.deg, sky.dec.deg) == pytest.approx((150.0, 2.0), abs=1e-3)


def test_a_band_without_data_is_not_invented(tmp_path: Path, model: Path) -> None:
    cards = header(152, 0.262)
    cards["BANDS"] = "gz"
    path = write(tmp_path / "two.fits", galaxy(152, 0.262)[[0, 2]], cards)
    run([str(path), "--out", str(tmp_path), "--model", str(model)], 0)
    with fits.open(tmp_path / "two-restored.fits") as found:
        assert found[0].header["BANDS"] == "gz"
        assert "PSFOUT_R" not in found[0].header
        assert found["RESTORED"].data.shape == (2, 152, 152)


def test_a_bad_file_is_named_and_stops_nothing_and_names_do_not_collide(tmp_path: Path, model: Path) -> None:
    (tmp_path / "other").mkdir()
    one = write(tmp_path / "one.fits", galaxy(152, 0.262), header(152, 0.262))
    other = write(tmp_path / "other" / "one.fits", 2 * galaxy(152, 0.262), header(152, 0.262))
    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"SIMPLE")
    result = run([str(one), str(bad), str(other), "--out", str(tmp_path / "out"), "--model", str(model)], 1)
    assert result["counts"] == {"restored": 2}
    assert [Path(item["file"]).name for item in result["failures"]] == ["bad.fits"]  # type: ignore[attr-defined]
    assert len(list((tmp_path / "out").glob("one*-restored.fits"))) == 2
