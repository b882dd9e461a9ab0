"""Galaxy Zoo 2 (Willett et al. 2013, MNRAS 435, 2835; Hart et al. 2016, MNRAS 461, 3663) in the tree of Galaxy Zoo DECaLS.

Votes per question are ``total_classifications`` times the weighted fractions of the answers that lead to it; fractions are the weighted,
not the debiased ones: a model answers for the image that it sees.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.errors import ConfigurationError
from galpipe.galaxyzoo import ANSWERS, place

Floats = NDArray[np.float64]

COLUMNS: dict[str, str] = {
    "smooth": "t01_smooth_or_features_a01_smooth",
    "featured": "t01_smooth_or_features_a02_features_or_disk",
    "artifact": "t01_smooth_or_features_a03_star_or_artifact",
    "edge-on": "t02_edgeon_a04_yes",
    "not edge-on": "t02_edgeon_a05_no",
    "bar": "t03_bar_a06_bar",
    "no bar": "t03_bar_a07_no_bar",
    "spiral": "t04_spiral_a08_spiral",
    "no spiral": "t04_spiral_a09_no_spiral",
    "no bulge": "t05_bulge_prominence_a10_no_bulge",
    "just noticeable": "t05_bulge_prominence_a11_just_noticeable",
    "obvious": "t05_bulge_prominence_a12_obvious",
    "dominant": "t05_bulge_prominence_a13_dominant",
    "odd": "t06_odd_a14_yes",
    "not odd": "t06_odd_a15_no",
    "round": "t07_rounded_a16_completely_round",
    "in-between": "t07_rounded_a17_in_between",
    "cigar-shaped": "t07_rounded_a18_cigar_shaped",
    "disturbed": "t08_odd_feature_a21_disturbed",
    "merger": "t08_odd_feature_a24_merger",
    "rounded bulge": "t09_bulge_shape_a25_rounded",
    "boxy bulge": "t09_bulge_shape_a26_boxy",
    "no edge-on bulge": "t09_bulge_shape_a27_no_bulge",
    "tight": "t10_arms_winding_a28_tight",
    "medium": "t10_arms_winding_a29_medium",
    "loose": "t10_arms_winding_a30_loose",
    "1": "t11_arms_number_a31_1",
    "2": "t11_arms_number_a32_2",
    "3": "t11_arms_number_a33_3",
    "4": "t11_arms_number_a34_4",
    "more-than-4": "t11_arms_number_a36_more_than_4",
    "cant-tell": "t11_arms_number_a37_cant_tell",
}
"""Answers of Galaxy Zoo 2 and the beginning of their columns' names (the tables of Hart et al. 2016)."""

PATHS: dict[str, tuple[str, ...]] = {
    "smooth-or-featured": (),
    "how-rounded": ("smooth",),
    "disk-edge-on": ("featured",),
    "edge-on-bulge": ("featured", "edge-on"),
    "has-spiral-arms": ("featured", "not edge-on"),
    "bar": ("featured", "not edge-on"),
    "bulge-size": ("featured", "not edge-on"),
    "spiral-winding": ("featured", "not edge-on", "spiral"),
    "spiral-arm-count": ("featured", "not edge-on", "spiral"),
}
"""Answers of Galaxy Zoo 2 on the way to the question that corresponds; merging is apart, see `_merging`."""

ANSWER_OF: dict[str, dict[str, str]] = {
    "smooth-or-featured": {"smooth": "smooth", "featured-or-disk": "featured", "artifact": "artifact"},
    "how-rounded": {"round": "round", "in-between": "in-between", "cigar-shaped": "cigar-shaped"},
    "disk-edge-on": {"yes": "edge-on", "no": "not edge-on"},
    "edge-on-bulge": {"boxy": "boxy bulge", "none": "no edge-on bulge", "rounded": "rounded bulge"},
    "has-spiral-arms": {"yes": "spiral", "no": "no spiral"},
    "bar": {"strong": "bar", "no": "no bar"},
    "bulge-size": {"dominant": "dominant", "large": "obvious", "small": "just noticeable", "none": "no bulge"},
    "spiral-winding": {"tight": "tight", "medium": "medium", "loose": "loose"},
    "spiral-arm-count": {answer: answer for answer in ("1", "2", "3", "4", "more-than-4", "cant-tell")},
}
"""DECaLS question and answer (the first of its group) to the answer of Galaxy Zoo 2."""

_SAME = ("smooth-or-featured", "how-rounded", "disk-edge-on", "edge-on-bulge", "has-spiral-arms", "spiral-winding", "spiral-arm-count")

GZ2_EXACT = frozenset(answer for answer in ANSWERS if answer.startswith(_SAME)) | {"bar_no"}
"""Answers that Galaxy Zoo 2 asks word for word: seven questions, and "no bar"."""


def gz2_groups() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Answers that Galaxy Zoo 2 does not tell apart: one bar, four steps of the bulge, one kind of disturbance."""
    return {
        "bar": (("strong", "weak"), ("no",)),
        "bulge-size": (("dominant",), ("large", "moderate"), ("small",), ("none",)),
        "merging": (("none",), ("minor-disturbance", "major-disturbance"), ("merger",)),
    }


def gz2_counts(table: pa.Table) -> Floats:
    """Votes in the DECaLS tree, shape (N, 34), a group's at its first answer.

    Raises
    ------
    ConfigurationError
        If a column of weighted fractions or ``total_classifications`` is missing.
    """
    fraction = {name: _column(table, f"{start}_weighted_fraction") for name, start in COLUMNS.items()}
    people = _column(table, "total_classifications")
    counts = np.zeros((table.num_rows, len(ANSWERS)))
    for question, answers in ANSWER_OF.items():
        asked = people * np.prod([fraction[answer] for answer in PATHS[question]], axis=0) if PATHS[question] else people
        for answer, own in answers.items():
            counts[:, place(question, answer)] = asked * fraction[own]
    for answer, votes in _merging(people, fraction).items():
        counts[:, place("merging", answer)] = votes
    return counts


def _merging(people: Floats, fraction: dict[str, Floats]) -> dict[str, Floats]:
    """Merging: whoever sees nothing odd sees none; of the odd features only a merger and a disturbed galaxy answer the question.

    Volunteers chose one feature: a ring, lens, dust lane, "irregular" or "other" says nothing of merging, and gives no vote.
    """
    asked = people * (fraction["smooth"] + fraction["featured"])
    odd = asked * fraction["odd"]
    disturbed, merger = odd * fraction["disturbed"], odd * fraction["merger"]
    return {"none": asked * fraction["not odd"], "minor-disturbance": disturbed, "merger": merger}


def _column(table: pa.Table, name: str) -> Floats:
    if name not in table.column_names:
        raise ConfigurationError("a table of Galaxy Zoo 2 votes", f"no column {name}")
    return np.nan_to_num(np.array(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64), nan=0.0)
