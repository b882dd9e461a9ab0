"""Galaxy Zoo 2's own count of votes is found again, and the two label sets reach the answers that the documentation says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galpipe.galaxyzoo import ANSWERS, place
from galpipe.labels.mapping import LABEL_SETS, MappedVotes, learned_tags, mapped_votes


def read(shared_data: Path, name: str) -> pa.Table:
    path = shared_data / "labels" / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}")
    file = pq.ParquetFile(path)
    return file.read(columns=[column for column in file.schema_arrow.names if column != "image"])


@pytest.fixture(scope="module")
def mapped(shared_data: Path) -> dict[str, tuple[pa.Table, MappedVotes]]:
    tables = {name: read(shared_data, name) for name in LABEL_SETS[1:]}
    return {name: (table, mapped_votes(name, table)) for name, table in tables.items()}


def numbers(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


def test_votes_add_up_to_the_published_total(mapped: dict[str, tuple[pa.Table, MappedVotes]]) -> None:
    table, votes = mapped["sdss_gz2_votes"]
    total = np.zeros(len(table))
    for index, answer in enumerate(ANSWERS):
        if not answer.startswith("merging"):
            total += votes.counts[:, index]
    # the questions on odd features: everybody but for artifacts, and those who said odd
    people = numbers(table, "total_classifications")
    asked = people * (1 - numbers(table, "t01_smooth_or_features_a03_star_or_artifact_weighted_fraction"))
    total += asked * (1 + numbers(table, "t06_odd_a14_yes_weighted_fraction"))
    published = numbers(table, "total_votes")
    off = np.abs(total / published - 1)
    assert np.median(total / published) == pytest.approx(1, abs=0.01)
    assert np.quantile(off, 0.9) < 0.05


def test_tags_are_those_of_the_documentation(mapped: dict[str, tuple[pa.Table, MappedVotes]]) -> None:
    seen = np.zeros((len(LABEL_SETS), 34))
    for name, (_, votes) in mapped.items():
        seen[LABEL_SETS.index(name)] = votes.per_answer()
    tags = dict(zip(ANSWERS, learned_tags(seen), strict=True))
    assert Counter(tags.values()) == {"real votes": 22, "mapped": 11, "mock only": 1}
    assert tags["spiral-arm-count_more-than-4"] == "mock only"


def test_experts_and_volunteers_agree_with_the_sets_own_classes(mapped: dict[str, tuple[pa.Table, MappedVotes]]) -> None:
    table, votes = mapped["sdss_gz2_votes"]
    labels = np.array(table["derived_label"].to_pylist())
    spiral = votes.counts[:, place("has-spiral-arms", "yes")]
    smooth = votes.counts[:, place("smooth-or-featured", "smooth")] / numbers(table, "total_classifications")
    assert spiral[labels == "spiral"].mean() > 3 * spiral[labels != "spiral"].mean()
    assert smooth[labels == "elliptical"].mean() > smooth[labels == "spiral"].mean() + 0.1
