"""Redshift tables beside real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from galpipe.evaluate.redshifts import read_performance
from galpipe.survey.redshiftmatch import match_redshifts
from galpipe.survey.redshifts import join_photoz, photoz_of, read_photoz
from galpipe.survey.tractor import read_tractor
from tests.survey.test_redshifts import write_photoz


def test_the_official_accuracy_of_photometric_redshifts(shared_data: Path) -> None:
    rows = read_performance(shared_data / "tables" / "dr10_photoz_performance.txt")
    assert [sum(row["bands"] == bands for row in rows) for bands in ("grz", "griz")] == [22, 21]
    gama = next(row for row in rows if (row["survey"], row["bands"]) == ("GAMA", "grz"))
    assert (gama["count"], gama["nmad"], gama["outliers_percent"]) == (127_386, 0.017, 1.2)


@pytest.mark.parametrize("name", ["sweep-310m005-320p000.fits", "sweep-320m005-330p000.fits"])
def test_a_photoz_file_beside_a_real_sweep(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "8.0"
    folder.mkdir()
    (folder / name).write_bytes((shared_data / "tractor" / name).read_bytes())
    sweep = read_tractor(folder / name)
    path = folder / name.replace(".fits", "-pz.fits")
    write_photoz(path, sweep.num_rows)
    assert photoz_of(folder / name) == path
    photoz = read_photoz(path)
    own = photoz
    for key in ("release", "brickid", "objid"):
        own = own.set_column(own.column_names.index(key), key, sweep[key])
    from galpipe.survey.tractor import packed_id

    own = own.set_column(0, "source_id", packed_id(own))
    joined = join_photoz(sweep, own, path.name)
    assert joined["z_phot_median"].null_count == 1
    spectra = pa.table({"ra": sweep["ra"].to_numpy() + 0.2 / 3600, "dec": sweep["dec"], "z_spec": np.linspace(0.1, 0.2, sweep.num_rows)})
    assert (match_redshifts(sweep, spectra).rows == np.arange(sweep.num_rows)).all()
