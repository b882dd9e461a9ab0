"""Figures of parameters whose errors are known because they were put there."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from flows.cli.evaluate import evaluate
from galpipe.errors import BadData
from galpipe.evaluate.parameter_errors import tractor_errors
from galpipe.evaluate.parameter_figure import draw, text_table
from galpipe.evaluate.parameters import BINNINGS, compare, predict_packs
from galpipe.heads.quantities import QUANTITIES
from galpipe.heads.redshiftpdf import CENTERS
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.pack import write_pack
from galpipe.lvm.predict import Predictor
from galpipe.lvm.weights import save_model
from galpipe.survey.photometry import ellipticity, mag_to_nanomaggies
from tests.lvm.toy import TINY, toy_pack

COUNT = 600


def measured(scatter: float, stated: float) -> tuple[pa.Table, pa.Table]:
    """Predictions with a known scatter and a stated sigma, and sources whose Tractor columns have their own."""
    rng = np.random.default_rng(1)
    mag, ratio, angle = rng.uniform(17, 21, COUNT), rng.uniform(0.2, 0.85, COUNT), rng.uniform(0, 180, COUNT)
    truth = {"mag_g": mag + 1, "mag_r": mag, "mag_z": mag - 0.5, "axis_ratio": ratio, "position_angle": angle}
    truth |= {"half_light_radius": 10 ** rng.uniform(-0.5, 0.8, COUNT), "sersic_n": rng.uniform(0.6, 5, COUNT)}
    truth |= {"bulge_fraction": rng.uniform(0, 1, COUNT), "redshift": rng.uniform(0.05, 0.6, COUNT)}
    columns: dict[str, object] = {"release": np.where(np.arange(COUNT) % 2, 9010, 9011), "kind": ["disk_spiral"] * COUNT}
    for band in "grz":
        flux = mag_to_nanomaggies(truth[f"mag_{band}"])
        columns |= {f"flux_{band}": flux * (1 + 0.02 * rng.normal(size=COUNT)), f"flux_ivar_{band}": 1 / (0.02 * flux) ** 2}
        columns |= {f"mw_transmission_{band}": np.ones(COUNT), f"psfsize_{band}": np.full(COUNT, 1.3)}
        columns[f"psfdepth_{band}"] = 10 ** rng.uniform(2, 3.3, COUNT)
    e1, e2 = ellipticity(ratio, angle)
    columns |= {"shape_r": truth["half_light_radius"], "sersic": truth["sersic_n"], "shape_e1": e1, "shape_e2": e2}
    columns |= {f"{name}_ivar": np.full(COUNT, 1e4) for name in ("shape_r", "sersic", "shape_e1", "shape_e2")}
    answers: dict[str, object] = {}
    for item in QUANTITIES:
        true = truth[item.truth]
        value = true + scatter * rng.normal(size=COUNT)
        answers |= {item.column: value, f"{item.column}_sigma": np.full(COUNT, stated)}
        answers |= {f"{item.column}_lo95": value - 1.96 * stated, f"{item.column}_hi95": value + 1.96 * stated}
    turned = angle + 5 * rng.normal(size=COUNT)
    answers |= {"lvm_position_angle": turned % 180, "lvm_position_angle_sigma": np.full(COUNT, 5.0)}
    answers |= {"lvm_position_angle_lo95": turned % 180 - 9.8, "lvm_position_angle_hi95": turned % 180 + 9.8}
    z = truth["redshift"] + 0.03 * rng.normal(size=COUNT)
    answers |= {"z_mock": z} | {f"z_mock_{end}": z + step * 0.03 for end, step in (("lo", -1), ("hi", 1), ("lo95", -1.96), ("hi95", 1.96))}
    pdf = np.exp(-0.5 * ((CENTERS - z[:, None]) / 0.03) ** 2)
    pdf /= pdf.sum(axis=1, keepdims=True)
    answers["z_mock_pdf"] = pa.FixedSizeListArray.from_arrays(pa.array(pdf.astype(np.float16).ravel()), len(CENTERS))
    return pa.table(answers), pa.table(columns | truth)


@cache
def honest() -> dict:
    """Figures of answers whose sigmas are right."""
    return compare(*measured(0.05, 0.05))


def find(result: dict, quantity: str, by: str = "all", where: str = "all", method: str = "lvm") -> dict:
    return next(row for row in result["rows"] if (row["quantity"], row["by"], row["bin"], row["method"]) == (quantity, by, where, method))


def test_known_errors_come_out_with_bars_that_hold_them() -> None:
    result = honest()
    row = find(result, "lvm_mag_r")
    assert row["galaxies"] == COUNT
    assert row["scatter"] == pytest.approx(0.05, abs=0.007) and row["scatter_low"] < 0.05 < row["scatter_high"]
    assert row["bias"] == pytest.approx(0, abs=0.008) and row["outliers"] == 0
    assert row["coverage68"] == pytest.approx(0.68, abs=0.05) and row["coverage95"] == pytest.approx(0.95, abs=0.02)
    assert find(result, "lvm_mag_r", method="tractor")["scatter"] == pytest.approx(0.0217, abs=0.004)
    assert find(result, "lvm_position_angle")["scatter"] == pytest.approx(5, abs=0.8)
    assert find(result, "z_mock")["scatter"] < 0.03
    groups = {(row["by"], row["bin"]) for row in result["rows"]}
    assert {by for by, _ in groups} == {"all", "magnitude", "size/seeing", "depth", "region"}
    assert ("region", "north") in groups and ("magnitude", "19 to 20") in groups
    members = [
        row["galaxies"] for row in result["rows"] if (row["quantity"], row["method"], row["by"]) == ("lvm_mag_r", "lvm", "magnitude")
    ]
    assert sum(members) == COUNT


def test_overconfident_answers_are_told() -> None:
    boasting = compare(*measured(0.05, 0.02))
    assert find(boasting, "lvm_mag_r")["coverage68"] < 0.35
    assert boasting["coverage"]["outside_beyond_error"] > honest()["coverage"]["outside_beyond_error"]
    assert any("lvm_axis_ratio, region north" in name for name in boasting["coverage"]["which"])


def test_a_redshift_pdf_is_judged_as_a_whole() -> None:
    pdf = honest()["redshift"]
    assert sum(pdf["pit_histogram"]) == COUNT and len(pdf["pit_histogram"]) == 10
    assert max(pdf["pit_histogram"]) < 1.5 * COUNT / 10
    assert pdf["crps"] < 0.3 * pdf["crps_constant"]


def test_perfect_tractor_columns_have_no_error() -> None:
    _, sources = measured(0.05, 0.05)
    errors = {item.quantity: item for item in tractor_errors(sources)}
    for name in ("lvm_half_light_radius", "lvm_sersic_n", "lvm_axis_ratio", "lvm_position_angle"):
        assert np.abs(errors[name].error).max() < 1e-6
    point = sources.set_column(sources.column_names.index("shape_r"), "shape_r", pa.array(np.zeros(COUNT)))
    assert all(np.isnan(item.error).all() for item in tractor_errors(point) if not item.quantity.startswith("lvm_mag"))


def test_stars_and_unmatched_sources_are_left_out() -> None:
    predicted, sources = measured(0.05, 0.05)
    kinds = ["star"] * 200 + ["disk_spiral"] * (COUNT - 200)
    fewer = sources.set_column(sources.column_names.index("kind"), "kind", pa.array(kinds))
    assert find(compare(predicted, fewer), "lvm_mag_r")["galaxies"] == COUNT - 200


def test_bins_divide_every_value_once() -> None:
    values = np.array([-5.0, 0.5, 1.0, 1.999, 18.0, 23.8, 99.0, np.nan])
    for binning in BINNINGS:
        members = np.stack([inside for _, inside in binning.bins(values)])
        assert members.sum(axis=0).tolist() == [1] * 7 + [0]


def test_tables_and_drawings_are_made() -> None:
    result = honest()
    text = text_table(result)
    assert "lvm_mag_r" in text and "tractor" in text and "PIT histogram" in text
    assert draw(result).startswith(b"\x89PNG")


def test_the_verb_measures_a_model_on_packs(tmp_path: Path) -> None:
    save_model(tmp_path / "model", new_model(TINY, 1), {"name": "tiny", "version": "1"}, "")
    write_pack(tmp_path / "pack", toy_pack(32))
    done = CliRunner().invoke(
        evaluate,
        ["parameters", "--model", str(tmp_path / "model"), "--pack", str(tmp_path / "pack"), "--json", "--plot", str(tmp_path / "x.png")],
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["counts"] == {"galaxies": 32} and told["benchmark"] is None
    assert {row["quantity"] for row in told["rows"]} >= {"lvm_mag_r", "z_mock"}
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_pack_without_truth_is_refused(tmp_path: Path) -> None:
    pack = toy_pack(2)
    write_pack(tmp_path / "bare", type(pack)(pack.image, pack.mask, pack.sources))
    with pytest.raises(BadData, match="a pack with truth"):
        predict_packs(Predictor(new_model(TINY, 1), {}, "", device_of("cpu")), [tmp_path / "bare"])
