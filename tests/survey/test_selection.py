from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from galpipe.config import SelectionSettings
from galpipe.errors import ConfigurationError
from galpipe.survey.selection import RULES, select
from galpipe.survey.tractor import read_tractor, tractor_subset
from tests.survey.fake_release import BRICK, UNIT, tractor_bytes, tractor_columns

GRZ = ("g", "r", "z")


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    return tractor_columns(1)


def reason(tmp_path: Path, columns: dict[str, np.ndarray], bands: tuple[str, ...] = GRZ, name: str = "galaxies-z20") -> str:
    path = tmp_path / f"tractor-{BRICK}.fits"
    path.write_bytes(tractor_bytes(columns))
    (found,) = select(tractor_subset(read_tractor(path, UNIT)), SelectionSettings(name), bands).to_pylist()
    return str(found)


@pytest.mark.parametrize("kind", ["REX", "EXP", "DEV", "SER"])
def test_galaxies_are_selected(tmp_path: Path, columns: dict[str, np.ndarray], kind: str) -> None:
    columns["type"] = np.array([kind])
    assert reason(tmp_path, columns) == ""


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"ra": np.nan}, "bad_position"),
        ({"dec": np.inf}, "bad_position"),
        ({"brick_primary": False, "type": "PSF"}, "not_primary"),
        ({"type": "DUP"}, "type_dup"),
        ({"type": "PSF"}, "type_psf"),
        ({"type": "PSF", "maskbits": 1 << 12}, "forced_psf_in_mask"),
        ({"type": "PSF", "maskbits": 1 << 1}, "forced_psf_in_mask"),
        ({"type": "PSF", "maskbits": 1 << 13}, "forced_psf_in_mask"),
        ({"type": "SER", "maskbits": 1 << 12}, ""),
        ({"type": "PSF", "maskbits": 1 << 11}, "type_psf"),
        ({"type": "SIM"}, "type_other"),
        ({"flux_z": np.nan}, "bad_flux"),
        ({"flux_ivar_z": np.nan}, "bad_flux"),
        ({"flux_ivar_z": 0.0}, "no_ivar"),
        ({"flux_z": 10.0}, "faint"),
        ({"flux_z": -3.0}, "faint"),
        ({"flux_z": 10.01}, ""),
        # z was not observed: r decides
        ({"flux_z": 0.0, "flux_ivar_z": 0.0, "nobs_z": 0}, ""),
        ({"flux_z": 0.0, "flux_ivar_z": 0.0, "nobs_z": 0, "flux_r": 9.0}, "faint"),
        ({"nobs_z": 0, "nobs_r": 0}, "no_ivar"),
        # masks alone never cut
        ({"maskbits": 1 << 12}, ""),
    ],
)
def test_each_rule(tmp_path: Path, columns: dict[str, np.ndarray], change: dict[str, object], rule: str) -> None:
    for name, value in change.items():
        columns[name] = np.array([value]) if name == "type" else np.array([value]).astype(columns[name].dtype)
    assert reason(tmp_path, columns) == rule
    assert rule in ("", *RULES)


def test_a_brick_without_z_images_goes_by_r(tmp_path: Path, columns: dict[str, np.ndarray]) -> None:
    columns["flux_z"] = np.array([1.0], np.float32)
    assert reason(tmp_path, columns) == "faint"
    assert reason(tmp_path, columns, ("g", "r")) == ""


def test_a_fainter_limit(tmp_path: Path, columns: dict[str, np.ndarray]) -> None:
    columns["flux_z"] = np.array([4.0], np.float32)
    assert reason(tmp_path, columns, name="galaxies-z21") == ""
    columns["flux_z"] = np.array([3.9], np.float32)
    assert reason(tmp_path, columns, name="galaxies-z21") == "faint"


def test_a_list_of_ids(tmp_path: Path) -> None:
    path = tmp_path / f"tractor-{BRICK}.fits"
    path.write_bytes(tractor_bytes(tractor_columns(4)))
    sources = tractor_subset(read_tractor(path, UNIT))
    wanted = tmp_path / "ids.txt"
    wanted.write_text(f"# mine\n{sources['source_id'][0].as_py()}\n9010 455939 2\n9010_455939_3  # good one\n\n")
    found = select(sources, SelectionSettings(f"ids:{wanted}"), GRZ)
    assert found.to_pylist() == ["", "not_in_list", "", ""]
    wanted.write_text("12 x\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        select(sources, SelectionSettings(f"ids:{wanted}"), GRZ)
    with pytest.raises(ConfigurationError, match="No such file"):
        select(sources, SelectionSettings("ids:nowhere.txt"), GRZ)


def test_unknown_selection() -> None:
    sources = tractor_subset(pa.table({"ra": [1.0], "dec": [1.0]}))
    with pytest.raises(ConfigurationError, match="galaxies-z20"):
        select(sources, SelectionSettings("everything"), GRZ)


def test_a_table_without_sources() -> None:
    sources = tractor_subset(pa.table({"ra": pa.array([], pa.float64()), "dec": pa.array([], pa.float64())}))
    assert len(select(sources, SelectionSettings(), GRZ)) == 0
