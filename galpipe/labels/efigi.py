"""EFIGI's expert attributes (Baillard et al. 2011, A&A 532, A74) as a few soft votes in the tree of Galaxy Zoo DECaLS.

An attribute stands on a scale of 0, 0.25, 0.5, 0.75, 1 with bounds that hold the truth in about 70 of 100; -1 is undetermined. The
expert's opinion is taken as spread over the steps between the bounds, the stated step counting double. Each step answers by a table; a
step that volunteers would answer either way has no answer, and its share of the votes is not given. The tables are judgements.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from galpipe.errors import ConfigurationError
from galpipe.galaxyzoo import ANSWERS, place

Floats = NDArray[np.float64]

STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)

VOTES = 4.0
"""Effective votes of one expert's opinion on a question."""

Answers = dict[str, float]

BY_STEP: dict[str, tuple[str, tuple[Answers, Answers, Answers, Answers, Answers]]] = {
    "how-rounded": ("Inclination", ({"round": 1}, {"in-between": 1}, {"in-between": 1}, {}, {"cigar-shaped": 1})),
    "disk-edge-on": ("Inclination", ({"no": 1}, {"no": 1}, {"no": 1}, {}, {"yes": 1})),
    "edge-on-bulge": ("Bulge_to_Total", ({"none": 1}, {}, {"rounded": 1}, {"rounded": 1}, {"rounded": 1})),
    "has-spiral-arms": ("Arm_Strength", ({"no": 1}, {}, {"yes": 1}, {"yes": 1}, {"yes": 1})),
    "bar": ("Bar_Length", ({"no": 1}, {"weak": 1}, {"weak": 0.5, "strong": 0.5}, {"strong": 1}, {"strong": 1})),
    "bulge-size": ("Bulge_to_Total", ({"none": 1}, {"small": 1}, {"moderate": 1}, {"large": 1}, {"dominant": 1})),
    "spiral-winding": ("Arm_Curvature", ({"loose": 1}, {"loose": 1}, {"medium": 1}, {"tight": 1}, {"tight": 1})),
    "merging": (
        "Perturbation",
        ({"none": 1}, {"none": 1}, {"minor-disturbance": 1}, {"major-disturbance": 1}, {"major-disturbance": 1}),
    ),
}
"""Per question the attribute that answers it and the answers of its five steps."""

SMOOTH_TYPES = (-6.0, -5.0, -4.0, 11.0)
"""EFIGI types cE, E, cD and dE: smooth, and no disk."""

FEATURED_FROM, FEATURED_TO = 1.0, 10.0
"""EFIGI types Sa to Im: features or a disk. Lenticulars and S0/a are disks to the expert, but smooth to many volunteers: no vote."""

EDGE_ON = 1.0
"""Inclination from which on the questions for disks seen edge-on are asked; those for other disks up to `OPEN`."""

OPEN = 0.5


def efigi_groups() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Answers that EFIGI does not tell apart or does not offer.

    It has no artifacts and no number of arms; a bulge seen edge-on is there or not; the strongest perturbation may be a merger.
    """
    return {
        "smooth-or-featured": (("smooth",), ("featured-or-disk",)),
        "edge-on-bulge": (("boxy", "rounded"), ("none",)),
        "spiral-arm-count": (),
        "merging": (("none",), ("minor-disturbance",), ("major-disturbance", "merger")),
    }


def efigi_counts(table: pa.Table) -> Floats:
    """Soft votes in the DECaLS tree, shape (N, 34).

    Raises
    ------
    ConfigurationError
        If an attribute or its bounds are missing.
    """
    counts = np.zeros((table.num_rows, len(ANSWERS)))
    kind, inclination = _column(table, "T"), opinion(table, "Inclination")
    smooth = np.isin(kind, SMOOTH_TYPES)
    featured = (kind >= FEATURED_FROM) & (kind <= FEATURED_TO)
    counts[:, place("smooth-or-featured", "smooth")] = VOTES * smooth
    counts[:, place("smooth-or-featured", "featured-or-disk")] = VOTES * featured
    steps = np.array(STEPS)
    edge_on, open_disk = inclination[:, steps >= EDGE_ON].sum(axis=1), inclination[:, steps <= OPEN].sum(axis=1)
    everyone, disk = np.ones(table.num_rows), (~smooth).astype(np.float64)
    arms = opinion(table, "Arm_Strength")[:, 2:].sum(axis=1)
    asked = {"how-rounded": smooth.astype(np.float64), "disk-edge-on": disk, "edge-on-bulge": disk * edge_on, "merging": everyone}
    asked |= dict.fromkeys(("has-spiral-arms", "bar", "bulge-size"), disk * open_disk)
    asked["spiral-winding"] = disk * open_disk * arms
    for question, (attribute, answers) in BY_STEP.items():
        shares = opinion(table, attribute) * (VOTES * asked[question])[:, None]
        for step, given in enumerate(answers):
            for answer, share in given.items():
                counts[:, place(question, answer)] += share * shares[:, step]
    return counts


def opinion(table: pa.Table, attribute: str) -> Floats:
    """How an expert's opinion is spread over the five steps, shape (N, 5); sums to 1, or to 0 where undetermined."""
    value, low, high = (_column(table, f"{attribute}{end}") for end in ("", "_inf", "_sup"))
    steps = np.array(STEPS)[None, :]
    inside = (steps >= low[:, None] - 1e-6) & (steps <= high[:, None] + 1e-6)
    weight = inside.astype(np.float64) + (np.abs(steps - value[:, None]) < 1e-6)
    weight = np.where((value >= 0)[:, None], weight, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    return np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)


def _column(table: pa.Table, name: str) -> Floats:
    if name not in table.column_names:
        raise ConfigurationError("a table of EFIGI attributes", f"no column {name}")
    return np.array(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
