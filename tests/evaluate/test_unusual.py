from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from galpipe.errors import ConfigurationError
from galpipe.evaluate.unusual import domain_figures, held_stamps, lens_figures, outlier_figures, purities, strange_stamps
from galpipe.lvm.frozen import fit_frozen
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.pack import write_pack
from galpipe.lvm.predict import Predictor
from galpipe.stamps.stampset import StampSet
from tests.lvm.toy import TINY, toy_pack

KINDS = ["smooth_elliptical"] * 6 + ["disk_spiral"] * 3 + ["merger"]


def held(count: int, seed: int, folder: Path) -> StampSet:
    pack = toy_pack(count, seed)
    place = pack.sources.column_names.index("kind")
    kinds = [KINDS[row % len(KINDS)] for row in range(count)]
    write_pack(folder / "pack", replace(pack, sources=pack.sources.set_column(place, "kind", [kinds])))
    return held_stamps([folder / "pack"], count, 1)


def test_every_sort_of_strange_stamps_gets_a_figure(tmp_path: Path) -> None:
    model = new_model(replace(TINY, heads=("domain", "lens")), 1)
    fit_frozen(model, toy_pack(120).stamps(), 1, ("domain",))
    predictor = Predictor(model, {}, "", device_of("cpu"))
    stamps = held(50, 4, tmp_path)
    told = {item.what: item for item in domain_figures(predictor, stamps, None, 1)}
    assert told["held-out mock stamps"].auc == 0.5
    assert {f"no {band} band" for band in "grz"} < set(told)
    assert told["all zero"].auc > 0.95
    assert told["no r band"].auc > 0.95
    assert told["pixels of 0.131 arcsec taken for 0.262"].auc > 0.95
    lens = lens_figures(predictor, stamps, None, 1)
    assert lens["drawn_lenses"] == 30
    assert set(lens["auc"]) == {"the same hosts", "hosts with blue companions", "all held-out galaxies"}
    assert "real" not in lens
    rows = outlier_figures(predictor, stamps, 1)
    # two percent of 45 ordinary ones
    assert {(row["kind"], row["rare"], row["of"]) for row in rows} == {("merger", 1, 46)}


def test_spoiled_stamps_differ_and_the_others_stay(tmp_path: Path) -> None:
    stamps = held(4, 1, tmp_path)
    before = np.array(stamps.image)
    for what, strange in strange_stamps(stamps, 1).items():
        assert not (np.array_equal(strange.image, stamps.image) and np.array_equal(strange.mask, stamps.mask)), what
    assert (stamps.image == before).all()
    double = strange_stamps(stamps, 1)["pixels of 0.131 arcsec taken for 0.262"]
    # twice as large, the same total inside
    assert double.flux(0)[1].sum() == pytest.approx(stamps.flux(0)[1].sum(), rel=0.1)


def test_purity_at_a_prevalence_is_bayes_and_a_bound_where_nothing_is_above() -> None:
    others = np.linspace(0, 1, 1000, endpoint=False)
    lenses = np.full(100, 0.9)
    found = purities(lenses, others)[1]
    assert (found.recall, found.false_positive_rate, found.bound) == (1.0, 0.1, False)
    assert found.purity == pytest.approx(1e-3 / (1e-3 + 0.1 * 0.999))
    above = purities(np.full(100, 2.0), others)[1]
    assert above.bound
    assert above.purity == pytest.approx(1e-3 / (1e-3 + 1e-3 * 0.999))


def test_no_pack_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="packs of held-out mock stamps"):
        held_stamps([], 10, 1)
