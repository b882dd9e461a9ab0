"""Mock volunteers answer from what can be seen."""

from __future__ import annotations

import numpy as np

from galpipe.galaxyzoo import PARENT, TREE
from galpipe.mock.seen import NO_IDEA, seen_chances
from galpipe.mock.sky import brick_sky
from galpipe.mock.spec import MockSpec
from galpipe.mock.votes import answer_chances, fraction_columns, vote
from galpipe.survey.bricks import brick_at


def test_the_tree_is_the_published_one() -> None:
    assert len(TREE) == 10 and len(fraction_columns()) == 34
    assert fraction_columns()[0] == "smooth-or-featured_smooth_fraction"


def test_fractions_and_totals_follow_the_tree() -> None:
    sky = brick_sky(MockSpec(galaxies=200, faint=20, stars=10), brick_at(10.0, 0.0))
    columns = vote(sky, np.full(len(sky), 200.0), 1.2, np.random.default_rng(0))
    shown = (sky["kind"] != "star") & ~sky["faint"]
    assert (columns["smooth-or-featured_total"] == np.where(shown, 40, 0)).all()
    for question, answers in TREE.items():
        fractions = np.stack([columns[f"{question}_{answer}_fraction"] for answer in answers], axis=1)
        total = columns[f"{question}_total"]
        assert np.isnan(fractions[total == 0]).all()
        np.testing.assert_allclose(fractions[total > 0].sum(axis=1), 1)
        parent = PARENT[question]
        if parent is not None and parent[1] != "not artifact":
            asked = columns[f"{parent[0]}_{parent[1]}_fraction"] * columns[f"{parent[0]}_total"]
            np.testing.assert_allclose(np.nan_to_num(asked), total)


def test_arms_that_cannot_be_seen_are_not_reported() -> None:
    sky = brick_sky(MockSpec(galaxies=300, faint=0, stars=0), brick_at(10.0, 0.0))
    spiral = sky[sky["kind"] == "disk_spiral"]
    spiral["half_light_radius"], spiral["bulge"] = 4.0, 0.1
    clear = answer_chances(spiral, np.full(len(spiral), 500.0), 1.2)["has-spiral-arms"][:, 0]
    spiral["half_light_radius"] = 0.4
    blurred = answer_chances(spiral, np.full(len(spiral), 500.0), 1.2)["has-spiral-arms"][:, 0]
    faint = answer_chances(spiral, np.full(len(spiral), 8.0), 1.2)["has-spiral-arms"][:, 0]
    assert clear.mean() > 0.8 and blurred.mean() < 0.25 and faint.mean() < 0.1


def test_the_survey_sky_is_voted_on_by_what_shows() -> None:
    sky = brick_sky(MockSpec(galaxies=300, faint=0, stars=0), brick_at(10.0, 0.0))
    spiral = sky[sky["kind"] == "disk_spiral"]
    spiral["half_light_radius"], spiral["disk_re"], spiral["bulge"], spiral["disk_q"], spiral["pitch"] = 5.0, 5.0, 0.1, 0.9, 20.0
    spiral["arm_strength"], spiral["arms"] = 0.7, 2
    count = len(spiral)
    clear = seen_chances(spiral, np.full(count, 800.0), 1.0)["has-spiral-arms"][:, 0]
    faint = seen_chances(spiral, np.full(count, 15.0), 1.0)["has-spiral-arms"][:, 0]
    blurred = seen_chances(spiral, np.full(count, 800.0), 8.0)["has-spiral-arms"][:, 0]
    spiral["disk_q"] = 0.15
    edge_on = seen_chances(spiral, np.full(count, 800.0), 1.0)["has-spiral-arms"][:, 0]
    assert clear.mean() > 0.8 and max(faint.mean(), blurred.mean(), edge_on.mean()) < 0.2


def test_who_cannot_see_answers_without_the_truth() -> None:
    sky = brick_sky(MockSpec(galaxies=200, faint=0, stars=0), brick_at(10.0, 0.0))
    for name in ("half_light_radius", "disk_re", "bulge_re", "bar_length", "ring_radius", "einstein"):
        sky[name] = 0.05
    chances = seen_chances(sky, np.full(len(sky), 9.0), 1.2)
    for question, answer in NO_IDEA.items():
        np.testing.assert_allclose(chances[question], np.tile(np.array(answer) / np.sum(answer), (len(sky), 1)), atol=0.03)
    assert (chances["has-spiral-arms"][:, 0] < 0.06).all() and (chances["bar"][:, 2] > 0.9).all()
    assert (chances["smooth-or-featured"][:, 0] > 0.9).all()


def test_the_survey_sky_fills_the_same_tree() -> None:
    sky = brick_sky(MockSpec(galaxies=100, faint=5, stars=5), brick_at(10.0, 0.0))
    columns = vote(sky, np.full(len(sky), 200.0), 1.0, np.random.default_rng(0), seen_chances)
    assert set(columns) == {*fraction_columns(), *(f"{question}_total" for question in TREE)}
    chances = seen_chances(sky, np.full(len(sky), 200.0), 1.0)
    for question, answers in TREE.items():
        assert chances[question].shape == (len(sky), len(answers))
        np.testing.assert_allclose(chances[question].sum(axis=1), 1)
        assert (chances[question] > 0).all()
