"""Votes of Galaxy Zoo 2 and attributes of EFIGI arrive at the answers that the tables say."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpipe.errors import ConfigurationError
from galpipe.galaxyzoo import ANSWERS, PARENT, TREE, place, slices
from galpipe.labels.efigi import BY_STEP, STEPS, VOTES, efigi_groups, opinion
from galpipe.labels.gz2 import ANSWER_OF, COLUMNS, GZ2_EXACT, gz2_groups
from galpipe.labels.mapping import MAPPINGS, leaders_of, mapped_votes


def gz2(people: float = 40, **fractions: float) -> pa.Table:
    """One galaxy; answers that are not named have no votes."""
    values = {f"{start}_weighted_fraction": [fractions.get(name, 0.0)] for name, start in COLUMNS.items()}
    return pa.table({"total_classifications": [people], **values})


BARRED = {"smooth": 0.25, "featured": 0.75, "not edge-on": 1.0, "bar": 0.8, "no bar": 0.2, "spiral": 0.5, "no spiral": 0.5, "2": 1.0}
BARRED |= {"obvious": 0.5, "just noticeable": 0.5, "tight": 1.0, "odd": 0.5, "not odd": 0.5, "merger": 0.4, "disturbed": 0.2}


def got(counts: np.ndarray, question: str) -> dict[str, float]:
    return {answer: float(counts[0, place(question, answer)]) for answer in TREE[question] if counts[0, place(question, answer)]}


def test_votes_follow_the_tree_down() -> None:
    counts = mapped_votes("sdss_gz2_votes", gz2(**BARRED)).counts
    assert got(counts, "smooth-or-featured") == pytest.approx({"smooth": 10, "featured-or-disk": 30})
    assert got(counts, "disk-edge-on") == pytest.approx({"no": 30})
    assert got(counts, "bar") == pytest.approx({"strong": 24, "no": 6})
    assert got(counts, "bulge-size") == pytest.approx({"large": 15, "small": 15})
    assert got(counts, "spiral-arm-count") == pytest.approx({"2": 15})
    assert got(counts, "merging") == pytest.approx({"none": 20, "minor-disturbance": 4, "merger": 8})
    assert got(counts, "edge-on-bulge") == got(counts, "how-rounded") == {}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=len(COLUMNS), max_size=len(COLUMNS)), st.floats(1, 80))
def test_nobody_answers_a_question_that_they_were_not_asked(shares: list[float], people: float) -> None:
    fractions = dict(zip(COLUMNS, shares, strict=True))
    # answers of one question add up to one or less
    for names in ANSWER_OF.values():
        total = max(sum(fractions[name] for name in names.values()), 1.0)
        for name in names.values():
            fractions[name] /= total
    counts = mapped_votes("sdss_gz2_votes", gz2(people, **fractions)).counts[0]
    for question, where in slices().items():
        parent = PARENT[question]
        if parent is not None and question != "merging":
            assert counts[where].sum() <= counts[place(*parent)] * (1 + 1e-5) + 1e-4


def test_every_answer_is_reached_or_said_not_to_be() -> None:
    mapped = mapped_votes("sdss_gz2_votes", gz2(**dict.fromkeys(COLUMNS, 0.5)))
    assert (mapped.per_answer() > 0).all() and (mapped.leaders >= 0).all()
    missing = [answer for answer, leader in zip(ANSWERS, leaders_of(efigi_groups()), strict=True) if leader < 0]
    assert missing == ["smooth-or-featured_artifact", *(f"spiral-arm-count_{answer}" for answer in TREE["spiral-arm-count"])]


@pytest.mark.parametrize("name", MAPPINGS)
def test_a_coarse_answer_is_never_called_exact(name: str) -> None:
    _, groups, exact = MAPPINGS[name]
    leaders = leaders_of(groups)
    shared = {ANSWERS[k] for k in range(34) if (leaders == leaders[k]).sum() > 1 or leaders[k] < 0}
    assert not shared & exact


def test_exact_answers_are_those_of_seven_questions_and_no_bar() -> None:
    assert len(GZ2_EXACT) == 34 - 3 - 5 - 4 + 1
    assert set(gz2_groups()) == {"bar", "bulge-size", "merging"}


def efigi(**values: float | tuple[float, float, float]) -> pa.Table:
    """One galaxy, Sb, face-on; a number stands for a value without doubt."""
    known: dict[str, float | tuple[float, float, float]] = {"T": 3.0, "Inclination": 0.0}
    known |= dict.fromkeys(("Bulge_to_Total", "Arm_Strength", "Bar_Length", "Arm_Curvature", "Perturbation"), -1.0)
    columns = {}
    for name, value in (known | values).items():
        parts = value if isinstance(value, tuple) else (value, value, value)
        columns |= {f"{name}{end}": [part] for end, part in zip(("", "_inf", "_sup"), parts, strict=True)}
    return pa.table(columns)


def test_an_expert_s_doubt_spreads_the_votes() -> None:
    sure = mapped_votes("sdss_efigi_attributes", efigi(Bar_Length=1.0)).counts
    assert got(sure, "bar") == pytest.approx({"strong": VOTES})
    unsure = mapped_votes("sdss_efigi_attributes", efigi(Bar_Length=(0.25, 0.0, 0.5))).counts
    assert got(unsure, "bar") == pytest.approx({"no": 1, "weak": 2 + 0.5, "strong": 0.5})
    assert got(mapped_votes("sdss_efigi_attributes", efigi()).counts, "bar") == {}


def test_experts_answer_along_the_tree() -> None:
    def votes(question: str, **values: float) -> dict[str, float]:
        return got(mapped_votes("sdss_efigi_attributes", efigi(**values)).counts, question)

    assert votes("smooth-or-featured", T=-5.0) == {"smooth": VOTES} and votes("bar", T=-5.0, Bar_Length=0.0) == {}
    assert votes("smooth-or-featured", T=-2.0) == {} and votes("bar", T=-2.0, Bar_Length=0.0) == {"no": VOTES}
    assert votes("how-rounded", T=-5.0, Inclination=0.5) == {"in-between": VOTES} and votes("how-rounded") == {}
    assert votes("disk-edge-on", Inclination=1.0) == {"yes": VOTES} and votes("disk-edge-on", Inclination=0.75) == {}
    assert votes("edge-on-bulge", Inclination=1.0, Bulge_to_Total=0.5) == {"boxy": VOTES}
    assert votes("bulge-size", Inclination=1.0, Bulge_to_Total=0.5) == {}
    assert votes("bulge-size", Bulge_to_Total=0.5) == {"moderate": VOTES}
    assert votes("spiral-winding", Arm_Strength=0.5, Arm_Curvature=0.0) == {"loose": VOTES}
    assert votes("spiral-winding", Arm_Strength=0.0, Arm_Curvature=0.0) == {}
    assert votes("merging", Perturbation=1.0) == {"major-disturbance": VOTES}


@settings(deadline=None, max_examples=50)
@given(st.sampled_from((-1.0, *STEPS)), st.sampled_from(STEPS), st.sampled_from(STEPS))
def test_an_opinion_is_whole_or_none(value: float, low: float, high: float) -> None:
    bounds = (min(low, value, high), max(low, value, high))
    spread = opinion(efigi(Bar_Length=(value, *bounds)), "Bar_Length")
    assert spread.sum() == pytest.approx(0 if value < 0 else 1)
    assert value < 0 or spread.argmax() == STEPS.index(value)


def test_step_tables_name_answers_and_give_at_most_one_vote() -> None:
    for question, (_, steps) in BY_STEP.items():
        assert all(set(step) <= set(TREE[question]) and sum(step.values()) in (0, 1) for step in steps)


def test_tables_that_are_not_the_set_s_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="a table of Galaxy Zoo 2 votes, got no column"):
        mapped_votes("sdss_gz2_votes", pa.table({"id": [1]}))
    with pytest.raises(ConfigurationError, match="a table of EFIGI attributes, got no column T"):
        mapped_votes("sdss_efigi_attributes", pa.table({"id": [1]}))
    with pytest.raises(ConfigurationError, match="a label set with a mapping"):
        mapped_votes("sdss_spirals", pa.table({"id": [1]}))
    with pytest.raises(ValueError, match="each answer in one group"):
        leaders_of({"bar": (("strong", "no"), ("no",))})
