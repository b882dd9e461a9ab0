"""Grouped answers follow from the Dirichlet, temperatures are found again, tags follow from the votes that trained a head."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from galpipe.galaxyzoo import ANSWERS, place, slices
from galpipe.heads.bands import band_sets
from galpipe.heads.base import StampContext
from galpipe.heads.morphology import Morphology
from galpipe.heads.votes import beta_binomial_cdf, coverage, dirichlet_multinomial_loss, grouped, temperature, transform
from galpipe.labels.mapping import LABEL_SETS, LEAST_VOTES, MappedVotes, leaders_of, learned_tags, mapped_votes
from tests.lvm.toy import TINY, toy_pack

parameters = st.lists(st.floats(0.2, 20.0), min_size=3, max_size=3)


def exact(concentration: list[float], counts: list[int]) -> float:
    return float(stats.dirichlet_multinomial.logpmf(counts, concentration, sum(counts)))


def constant(counts: list[int]) -> float:
    """The multinomial coefficient's log, which the loss leaves out."""
    from scipy.special import gammaln

    return float(gammaln(sum(counts) + 1) - gammaln(np.array(counts) + 1.0).sum())


@given(parameters, st.lists(st.integers(0, 4), min_size=2, max_size=2))
@settings(deadline=None, max_examples=40)
def test_a_group_s_votes_have_the_marginal_of_the_dirichlet_multinomial(concentration: list[float], counts: list[int]) -> None:
    bar, none = counts
    summed = sum(np.exp(exact(concentration, [strong, bar - strong, none])) for strong in range(bar + 1))
    own = grouped(torch.tensor([concentration], dtype=torch.float64), torch.tensor([[0, 0, 2]]))
    loss = dirichlet_multinomial_loss(own, torch.tensor([[bar, 0, none]], dtype=torch.float64))
    assert np.exp(-float(loss) + constant(counts)) == pytest.approx(summed, rel=1e-9)


@given(parameters, st.lists(st.integers(0, 4), min_size=2, max_size=2))
@settings(deadline=None, max_examples=40)
def test_an_answer_that_is_not_offered_leaves_the_conditional(concentration: list[float], counts: list[int]) -> None:
    own = grouped(torch.tensor([concentration], dtype=torch.float64), torch.tensor([[0, 1, -1]]))
    loss = dirichlet_multinomial_loss(own, torch.tensor([[*counts, 0]], dtype=torch.float64))
    chance = exact(concentration[:2], counts)
    assert -float(loss) + constant(counts) == pytest.approx(chance, rel=1e-9, abs=1e-9)


def test_without_groups_nothing_changes_and_gradients_are_finite() -> None:
    rng = np.random.default_rng(1)
    head = Morphology.build(TINY)
    raw = torch.tensor(rng.uniform(0.1, 9, (5, 34)), dtype=torch.float32, requires_grad=True)
    votes = torch.tensor(rng.integers(0, 9, (5, 34)), dtype=torch.float32)
    apart = torch.arange(34).expand(5, 34)
    one, other = head.loss({"concentration": raw}, {"votes": votes}), head.loss({"concentration": raw}, {"votes": votes, "groups": apart})
    assert one.item() == other.item()
    nobody = {"votes": torch.zeros(5, 34), "groups": torch.full((5, 34), -1)}
    lost = head.loss({"concentration": raw}, nobody)
    lost.backward()
    assert lost.item() == 0 and raw.grad is not None and (raw.grad == 0).all()


def test_votes_for_a_group_teach_its_sum_and_not_its_parts() -> None:
    leaders = torch.as_tensor(leaders_of({"bar": (("strong", "weak"), ("no",))})).expand(1, 34)
    counts = torch.zeros(1, 34)
    counts[0, place("bar", "strong")], counts[0, place("bar", "no")] = 9, 1
    raw = torch.full((1, 34), 2.0, requires_grad=True)
    Morphology.build(TINY).loss({"concentration": raw}, {"votes": counts, "groups": leaders}).backward()
    assert raw.grad is not None
    strong, weak, none = raw.grad[0, slices()["bar"]].tolist()
    assert strong == weak < 0 < none
    assert torch.count_nonzero(raw.grad) == 3


def sample(rng: np.random.Generator, factor: float, galaxies: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Concentrations, and votes drawn as if they were ``factor`` times as concentrated."""
    stated = np.exp(rng.uniform(-1, 2, (galaxies, 3)))
    shares = np.stack([rng.dirichlet(row * factor) for row in stated])
    return stated, np.stack([rng.multinomial(30, share) for share in shares]).astype(float)


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_the_temperature_that_the_votes_were_drawn_with_is_found(factor: float) -> None:
    rng = np.random.default_rng(5)
    stated, counts = sample(rng, factor)
    found = temperature(stated, counts, 0.9)
    assert found == pytest.approx(factor, rel=0.15)
    assert coverage(transform(stated * found, counts, rng), 0.9) == pytest.approx(0.9, abs=0.02)
    assert temperature(stated[:10], counts[:10], 0.9) == 1.0


def test_intervals_around_wrong_shares_are_widened_until_they_hold_enough() -> None:
    rng = np.random.default_rng(6)
    stated, counts = sample(rng, 3.0)
    wrong = stated[:, [0, 2, 1]]
    found = temperature(wrong, counts, 0.9)
    assert coverage(transform(wrong * found, counts, rng), 0.9) == pytest.approx(0.9, abs=0.02)


@given(st.integers(0, 30), st.integers(0, 30), st.floats(0.1, 50), st.floats(0.1, 50))
@settings(deadline=None, max_examples=40)
def test_the_distribution_is_scipy_s(counts: int, more: int, one: float, other: float) -> None:
    people = counts + more
    arrays = [np.array([float(value)]) for value in (counts, people, one, other)]
    assert beta_binomial_cdf(*arrays)[0] == pytest.approx(stats.betabinom.cdf(counts, people, one, other), abs=1e-9)
    assert beta_binomial_cdf(arrays[0] * 0 - 1, *arrays[1:])[0] == 0


def test_a_right_model_s_transform_is_uniform() -> None:
    rng = np.random.default_rng(7)
    stated, counts = sample(rng, 1.0)
    draws = transform(stated, counts, rng)
    assert stats.kstest(draws[:, 0], "uniform").pvalue > 0.01
    assert np.isnan(transform(stated[:1], counts[:1] * 0, rng)).all()


def blind(count: int, bands: str) -> StampContext:
    """Stamps of one pixel in a frame, with data in some bands."""
    valid = np.zeros((count, 3, 9, 9), np.float32)
    for band in bands:
        valid[:, "grz".index(band)] = 1
    return StampContext(pa.table({"ra": [0.0] * count}), 1, 4, 0.262, valid, valid)


def test_calibration_makes_the_interval_hold_for_each_set_of_bands() -> None:
    rng = np.random.default_rng(2)
    head = Morphology.build(TINY)
    parts = []
    for bands, factor in (("grz", 0.3), ("r", 1.0)):
        raw = {"concentration": np.exp(rng.uniform(-1, 2, (300, 34))).astype(np.float32)}
        counts = np.zeros((300, 34), np.float32)
        for where in slices().values():
            shares = [rng.dirichlet(row[where] * factor) for row in raw["concentration"].astype(float)]
            counts[:, where] = [rng.multinomial(20, share) for share in shares]
        mapped = MappedVotes("mock", counts, np.arange(34), np.zeros(34, bool))
        parts.append(head.vote_calibration(raw, mapped, blind(300, bands)))
    figures = head.calibrate({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    bar = {when: figures[f"grz: bar: coverage of 90% {when}"] for when in ("before", "after")}
    assert bar["before"] < 0.8 < 0.86 < bar["after"] < 0.94
    assert figures["grz: bar: temperature"] == pytest.approx(0.3, rel=0.25)
    assert figures["r: bar: temperature"] == pytest.approx(1.0, rel=0.25)
    raw = {"concentration": np.full((1, 34), 5, np.float32)}
    assert head.temperature[1, 5] == head.temperature[[7, 2], 5].min()
    wide, narrow = (head.decode(raw, blind(1, bands)) for bands in ("grz", "r"))
    name = "bar_weak_fraction"
    assert wide[name] == narrow[name]
    assert wide[f"{name}_lo"][0].as_py() < narrow[f"{name}_lo"][0].as_py() < narrow[f"{name}_hi"][0].as_py() < wide[f"{name}_hi"][0].as_py()


def test_sets_of_bands_are_told_from_the_valid_pixels() -> None:
    assert [int(band_sets(blind(1, bands))[0]) for bands in ("grz", "g", "rz", "")] == [7, 1, 6, 0]


class TestTags:
    def test_what_no_real_galaxy_taught_is_mock_only(self) -> None:
        head = Morphology.build(TINY)
        assert {column.learned for column in head.columns()} == {"mock only"}
        head.prepare(toy_pack(8).sources)
        assert {column.learned for column in head.columns()} == {"mock only"}
        assert int(head.votes_seen[LABEL_SETS.index("mock"), place("bar", "strong")]) == 128

    def test_the_tag_follows_from_the_votes_and_travels_with_the_weights(self) -> None:
        head = Morphology.build(TINY)
        counts = np.zeros((1, 34), np.float32)
        counts[0, [place("bar", "strong"), place("bar", "no"), place("how-rounded", "round")]] = LEAST_VOTES
        counts[0, place("spiral-arm-count", "4")] = LEAST_VOTES - 1
        leaders = leaders_of({"bar": (("strong", "weak"), ("no",))})
        head.learned_from(MappedVotes("sdss_gz2_votes", counts, leaders, np.zeros(34, bool)))
        again = Morphology.build(TINY)
        again.load_state_dict(head.state_dict())
        tags = {column.name: column.learned for column in again.columns()}
        assert tags["bar_strong_fraction"] == tags["bar_weak_fraction_lo"] == "mapped"
        assert tags["bar_no_fraction"] == tags["how-rounded_round_fraction_hi"] == "real votes"
        assert tags["spiral-arm-count_4_fraction"] == tags["how-rounded_cigar-shaped_fraction"] == "mock only"
        assert tags["bar_proportion_asked"] == "mock only"

    def test_experts_are_no_volunteers(self) -> None:
        votes = np.zeros((len(LABEL_SETS), 34))
        votes[LABEL_SETS.index("sdss_efigi_attributes")] = 1000
        assert set(learned_tags(votes)) == {"mapped"}
        votes[LABEL_SETS.index("sdss_gz2_votes")] = 1000
        tags = dict(zip(ANSWERS, learned_tags(votes), strict=True))
        assert tags["smooth-or-featured_smooth"] == "real votes" and tags["bulge-size_none"] == "mapped"


def test_mock_votes_are_their_own_mapping() -> None:
    table = toy_pack(3).sources
    mapped = mapped_votes("mock", table)
    assert mapped.counts.sum(axis=1) == pytest.approx([200.0] * 3) and (mapped.leaders == np.arange(34)).all()
    assert isinstance(table, pa.Table) and len(mapped.take(np.array([2]))) == 1
