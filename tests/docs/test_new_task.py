"""The page docs/new-task.md does what it says: its file is taken out, trained on a frozen encoder, and asked."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from galpipe.errors import ConfigurationError
from galpipe.heads.base import head_class
from galpipe.lvm.model import device_of, new_model
from galpipe.lvm.predict import Predictor
from tests.lvm.toy import TINY, toy_pack, toy_stamps

PAGE = Path(__file__).resolve().parents[2] / "docs" / "new-task.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's two files, on the path while the tests run."""
    folder = tmp_path_factory.mktemp("page")
    head, training = blocks()
    (folder / "concentration.py").write_text(head)
    (folder / "train_concentration.py").write_text(training)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in ("concentration", "train_concentration"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def learned(page: Path) -> tuple[Predictor, dict[str, object], Path]:
    import train_concentration

    base = Predictor(new_model(TINY, 1), {"name": "tiny", "version": "0"}, "abc", device_of("cpu"))
    facts = train_concentration.learn(base, toy_pack(8, 1), toy_pack(8, 2), toy_pack(4, 3), page)
    return base, facts, page / "model"


def test_a_disk_is_as_concentrated_as_its_profile_says(page: Path) -> None:
    import concentration

    grid = np.arange(160) - 80
    radius = np.hypot(grid[:, None], grid[None, :])
    disk = np.arcsinh(np.exp(-radius / 4.0) / 0.01)
    measured = concentration.concentration(np.broadcast_to(disk, (1, 3, 160, 160)))
    # of an exponential disk r80 / r20 = 2.994 / 0.824
    assert measured[0] == pytest.approx(5 * np.log10(2.994 / 0.824), abs=0.1)
    assert np.isnan(concentration.concentration(np.zeros((1, 3, 160, 160)))).all()


def test_the_head_is_trained_calibrated_and_scored(learned: tuple[Predictor, dict[str, object], Path]) -> None:
    _, facts, folder = learned
    history = facts["history"]
    assert isinstance(history, list) and history[-1]["concentration"] < 2
    assert facts["scores"] and set(facts["calibration"]) == {"coverage of 68% before", "coverage of 68% after"}  # type: ignore[call-overload]
    card = json.loads((folder / "card.json").read_text())
    assert card["settings"]["heads"][-1] == "concentration:Concentration" and card["heads"]["concentration"] == 1
    assert "error of the concentration" in (folder / "MODEL_CARD.md").read_text()


def test_its_columns_come_out_and_every_other_stays(learned: tuple[Predictor, dict[str, object], Path]) -> None:
    base, _, folder = learned
    table = Predictor.load(folder, device="cpu").predict(toy_stamps(3), batch=4)
    assert table["concentration_sigma"].null_count == 0 and (table["concentration_sigma"].to_numpy() > 0).all()
    assert table.schema.field("concentration").metadata[b"learned"] == b"mock only"
    for (name, one), (other, two) in zip(
        base.model.encoder.state_dict().items(), new_model(TINY, 1).encoder.state_dict().items(), strict=True
    ):
        assert name == other and torch.equal(one, two)
    before = base.predict(toy_stamps(3), batch=4)
    again = table["bar_no_fraction"].to_numpy()
    assert again == pytest.approx(before["bar_no_fraction"].to_numpy(), abs=2e-3)


def test_a_head_that_is_not_on_the_path_is_refused(page: Path) -> None:
    for name, what in (
        ("nowhere.to_be_found", "on the Python path"),
        ("concentration:Contrast", "a subclass of Head in concentration:Contrast"),
    ):
        with pytest.raises(ConfigurationError, match=what):
            head_class(name)


def test_a_second_head_of_one_name_is_refused(learned: tuple[Predictor, dict[str, object], Path], page: Path) -> None:
    import train_concentration

    with pytest.raises(ConfigurationError, match="a head of a new name"):
        train_concentration.learn(Predictor.load(learned[2], device="cpu"), toy_pack(2), toy_pack(2), toy_pack(2), page / "again")
