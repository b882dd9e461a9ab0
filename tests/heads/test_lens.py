from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from galpipe.heads import lens
from galpipe.heads.lens import RING_FACTS, RINGS, Lens, area_under_curve, ring_facts
from galpipe.lvm.data import load_truth
from galpipe.lvm.frozen import fit_frozen
from galpipe.lvm.inputs import stamp_inputs
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.predict import Predictor
from galpipe.mock.lenses import inject
from galpipe.stamps.normalize import encode
from galpipe.stamps.stampset import StampSet
from tests.lvm.toy import TINY, toy_pack

SETTINGS = replace(TINY, heads=("lens",))


def hosts(count: int, seed: int, kind: str = "smooth_elliptical") -> StampSet:
    """Red galaxies, as lenses are."""
    stamps = toy_pack(count, seed).stamps()
    image = np.array(stamps.image)
    for row in range(count):
        flux = stamps.flux(row)
        image[row, 0] = encode(flux[0] * 0.3, stamps.codecs[0])
    place = stamps.sources.column_names.index("kind")
    return replace(stamps, image=image, sources=stamps.sources.set_column(place, "kind", [[kind] * count]))


def test_rings_show_what_is_not_round_whichever_way_the_stamp_is_turned() -> None:
    stamps = hosts(4, 1)
    plain, arcs = stamp_inputs(stamps), stamp_inputs(inject(stamps, np.random.default_rng(2)).stamps)
    one, other = ring_facts(plain.pixels, plain.valid), ring_facts(arcs.pixels, arcs.valid)
    assert one.shape == (4, RING_FACTS * len(RINGS))
    # the largest excess of g over r in rings where the galaxy outshines the noise
    color = slice(4, 4 * RING_FACTS, RING_FACTS)
    assert (other[:, color].amax(dim=1) > one[:, color].amax(dim=1)).all()
    # pixel 80 of 160 stays where it is when the frame without its first row and column is turned
    square = arcs.pixels[:, :, 1:, 1:]
    turned = torch.zeros_like(arcs.pixels)
    turned[:, :, 1:, 1:] = torch.rot90(square, 1, (2, 3))
    assert ring_facts(turned, arcs.valid).numpy() == pytest.approx(other.numpy(), abs=2e-3)


def test_drawn_lenses_are_learned_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens, "STEPS", 150)
    model = new_model(SETTINGS, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    facts = fit_frozen(model, hosts(60, 3), seed=1)["lens"]
    assert facts["lenses"] == 60
    assert facts["others"] == 120
    assert facts["auc_held"] > 0.75
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("heads.lens_head.") for name in changed)
    new = hosts(30, 8)
    predictor = Predictor(model, {}, "", device_of("cpu"))
    score = [predictor.predict(item)["lens_score"].to_numpy() for item in (inject(new, np.random.default_rng(5)).stamps, new)]
    assert area_under_curve(np.concatenate(score), np.repeat([True, False], 30)) > 0.75
    assert all(((part >= 0) & (part <= 1)).all() for part in score)
    # a second training from the same seed is the same
    again = new_model(SETTINGS, 1)
    assert fit_frozen(again, hosts(60, 3), seed=1)["lens"] == facts


def test_a_sky_without_early_types_teaches_nothing() -> None:
    model = new_model(SETTINGS, 1)
    assert fit_frozen(model, hosts(4, 3, kind="disk_spiral"), seed=1) == {"lens": {"hosts": 0.0}}


def test_the_score_is_measured_where_the_sky_has_lenses_of_its_own() -> None:
    truth = load_truth(toy_pack(4), np.arange(4))
    predicted = pa.table({"lens_score": np.array([0.9, 0.1, 0.2, 0.8], np.float32)})
    head = Lens.build(SETTINGS)
    assert head.score(predicted, truth, truth.table) == []
    table = truth.table.set_column(truth.table.column_names.index("kind"), "kind", [["lens", "edge_on", "merger", "lens"]])
    scores = head.score(predicted, replace(truth, table=table), truth.table)
    assert (scores[0].value, scores[0].count) == (1.0, 2)
