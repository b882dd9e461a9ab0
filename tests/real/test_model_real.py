"""Real galaxies as training input, and what of them is never learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn import functional

from galpipe.lvm.inputs import stamp_inputs, turned_inputs
from galpipe.lvm.realset import real_set
from galpipe.lvm.weights import load_model
from galpipe.stamps.external import read_stamps
from galpipe.stamps.stampset import StampSet


def linked(shared_data: Path, folder: Path, *sets: str) -> Path:
    (folder / "stamps").symlink_to(shared_data / "stamps")
    (folder / "labels").mkdir()
    for name in sets:
        (folder / "labels" / f"{name}.parquet").symlink_to(shared_data / "labels" / f"{name}.parquet")
    return folder


def test_pixels_of_all_and_labels_of_those_that_may_train(shared_data: Path, tmp_path: Path) -> None:
    found = real_set(linked(shared_data, tmp_path, "legacy_galaxy10", "sdss_gz2_votes"))
    assert found is not None
    assert len(found.pack) == len(found.pictures) == 14 + 52 + 501
    assert found.sets["legacy_galaxy10"] == {"galaxies": 52, "answered": 0}
    assert found.sets["sdss_gz2_votes"]["answered"] == 501
    assert np.median((found.pack.mask == 0).mean(axis=(1, 2))) > 0.99


def test_a_set_can_be_kept_from_teaching(shared_data: Path, tmp_path: Path) -> None:
    found = real_set(linked(shared_data, tmp_path, "sdss_gz2_votes"), without=("sdss_gz2_votes",))
    assert found is not None and len(found.pack) == 14 + 501 and not found.answers.weights.any()


def test_a_set_can_be_kept_from_sight_with_its_galaxies_elsewhere(shared_data: Path, tmp_path: Path) -> None:
    folder = linked(shared_data, tmp_path, "legacy_galaxy10", "sdss_gz2_votes")
    table = pq.read_table(shared_data / "labels" / "sdss_gz2_votes.parquet").slice(0, 40)
    # the same pictures under another name: a galaxy is known by what it looks like
    pq.write_table(table.select(["id", "image"]), folder / "labels" / "again.parquet")
    found = real_set(folder, unseen=("sdss_gz2_votes",))
    assert found is not None and len(found.pack) == 14 + 52 and set(found.sets) == {"stamps", "legacy_galaxy10"}
    assert not found.answers.weights.any()


def test_a_real_stamp_turned_by_quarters_embeds_alike(shared_data: Path) -> None:
    encoder = load_model().model.encoder
    found = [item for item in read_stamps(sorted((shared_data / "stamps").glob("*.fits"))) if isinstance(item, StampSet)]
    assert sum(len(item) for item in found) == 14
    for stamps in found:
        inputs = stamp_inputs(stamps)
        with torch.inference_mode():
            one, *others = (encoder(turned_inputs(inputs, quarters)).embedding for quarters in range(4))
        assert min(float(functional.cosine_similarity(one, other).min()) for other in others) > 0.98
