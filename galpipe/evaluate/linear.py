"""A linear model on frozen features: what few labels can pay for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from galpipe.errors import ConfigurationError

Floats = NDArray[np.float64]

STRENGTHS = np.logspace(-4, 1, 6)
"""Inverse regularization strengths that cross-validation chooses from; features vary by about 1."""

FOLDS = 5
LEVELS = (0.68, 0.95)
"""Shares of galaxies that the intervals of a learned number hold."""

LEAST_LABELS = 10
"""Labels below which no interval can be stated."""

ALPHAS = np.logspace(-1, 5, 13)


def class_scores(features: Floats, codes: NDArray[np.int64], test: Floats, classes: int, seed: int, scaled: bool = True) -> Floats:
    """Multinomial logistic regression, its strength chosen by cross-validated log loss.

    Parameters
    ----------
    features : ndarray, shape (N, F)
    codes : ndarray of int64, shape (N,)
    test : ndarray, shape (M, F)
    classes : int
    seed : int
        Of the folds.
    scaled : bool
        Bring every feature to unit spread first; not where the features' own spread says how much they count.

    Returns
    -------
    ndarray, shape (M, classes)
        Probabilities; 0 for a class of which the training rows have none.
    """
    # products this small are done before threads have found each other: on a busy machine two take minutes for what one does in seconds
    with threadpool_limits(1):
        fitted = make_pipeline(StandardScaler(with_std=scaled), classifier(codes, seed)).fit(features, codes)
    scores = np.zeros((len(test), classes))
    scores[:, np.unique(codes)] = fitted.predict_proba(test)
    return scores


def classifier(codes: NDArray[np.int64], seed: int) -> LogisticRegression | LogisticRegressionCV:
    """Logistic regression that is yet to be fitted; its strength is chosen by cross-validated log loss where there are labels enough."""
    folds = min(FOLDS, int(np.unique(codes, return_counts=True)[1].min()))
    if folds < 2:
        return LogisticRegression(C=0.01, max_iter=2000)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return LogisticRegressionCV(
        Cs=STRENGTHS, cv=split, scoring="neg_log_loss", max_iter=2000, l1_ratios=(0.0,), use_legacy_attributes=False
    )


UNSEEN = -20.0
"""Logit of a class that no label shows."""


def linear_solution(features: Floats, answers: Floats, classes: int, seed: int) -> tuple[Floats, Floats]:
    """Weights and intercepts of the best linear model, as a network's last layer holds them.

    Parameters
    ----------
    features : ndarray, shape (N, F)
        In the unit in which they count (`class_scores` with ``scaled=False``).
    answers : ndarray, shape (N,)
        Codes of classes, or numbers.
    classes : int
        0 for numbers.
    seed : int
        Of the folds.

    Returns
    -------
    weights : ndarray, shape (C, F)
        C is 1 for numbers.
    intercepts : ndarray, shape (C,)
    """
    center = features.mean(axis=0)
    if not classes:
        ridge = RidgeCV(alphas=ALPHAS).fit(features - center, answers)
        weights, intercepts = np.asarray(ridge.coef_).reshape(1, -1), np.atleast_1d(ridge.intercept_)
        return weights, intercepts - weights @ center
    codes = answers.astype(np.int64)
    present = np.unique(codes)
    weights, intercepts = np.zeros((classes, features.shape[1])), np.full(classes, UNSEEN)
    if len(present) == 1:
        intercepts[present] = 0.0
        return weights, intercepts
    with threadpool_limits(1):
        model = classifier(codes, seed).fit(features - center, codes)
    slopes, offsets = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(slopes) == 1:
        # of two classes scikit-learn gives one logit, the second class's over the first's
        slopes, offsets = np.concatenate([-slopes, slopes]) / 2, np.concatenate([-offsets, offsets]) / 2
    weights[present], intercepts[present] = slopes, offsets - slopes @ center
    return weights, intercepts


def number_scores(features: Floats, values: Floats, test: Floats, scaled: bool = True) -> Floats:
    """Ridge regression, its strength chosen by leave-one-out; shape (M,); ``scaled`` as in `class_scores`."""
    model = make_pipeline(StandardScaler(with_std=scaled), RidgeCV(alphas=ALPHAS))
    return np.asarray(model.fit(features, values).predict(test), np.float64)


@dataclass(frozen=True)
class LearnedNumber:
    """A number learned from embeddings, with intervals.

    Parameters
    ----------
    weights : ndarray, shape (F,)
        Of the embeddings as they are.
    intercept : float
    half_widths : tuple of float
        Half-widths of the 68 and 95 % intervals.
    labels : int
        Galaxies that it was learned from.
    """

    weights: Floats
    intercept: float
    half_widths: tuple[float, ...]
    labels: int

    def predict(self, embeddings: Floats) -> Floats:
        """Values of galaxies, shape (M,), from embeddings of shape (M, F)."""
        return np.asarray(embeddings @ self.weights + self.intercept, np.float64)


def learn_number(embeddings: Floats, values: Floats, seed: int = 0, scaled: bool = False) -> LearnedNumber:
    """Learn any number (a metallicity, a color, a mass) from stored embeddings of galaxies for which it is known.

    Ridge regression as `number_scores`; the intervals are conformal: quantiles of the errors that galaxies have when their own fold did
    not take part (CV conformal, Barber et al. 2021, Ann. Stat. 49, 486), so that they hold for galaxies of the same population whatever
    the model.

    Parameters
    ----------
    embeddings : ndarray, shape (N, F)
        Column ``embedding`` of a catalog, or of `galpipe.lvm.predict.Predictor.predict`.
    values : ndarray, shape (N,)
    seed : int
        Of the folds.
    scaled : bool
        See `class_scores`.

    Raises
    ------
    ConfigurationError
        If there are fewer than 10 labels, they do not fit the embeddings, or one is not finite.
    """
    features = np.asarray(embeddings, np.float64)
    if len(values) < LEAST_LABELS or len(features) != len(values) or not np.isfinite(values).all():
        raise ConfigurationError(f"at least {LEAST_LABELS} finite labels, one per embedding", f"{len(values)} for {len(features)}")
    errors = np.zeros(len(values))
    for learn, asked in KFold(2 * FOLDS, shuffle=True, random_state=seed).split(features):
        errors[asked] = np.abs(number_scores(features[learn], values[learn], features[asked], scaled) - values[asked])
    # the whole is read off at zero and at each axis, so that no detail of the pipeline is repeated here
    probes = np.concatenate([np.zeros((1, features.shape[1])), np.eye(features.shape[1])])
    answers = number_scores(features, values, probes, scaled)
    return LearnedNumber(answers[1:] - answers[0], float(answers[0]), conformal_half_widths(errors), len(values))


def conformal_half_widths(errors: Floats, levels: tuple[float, ...] = LEVELS) -> tuple[float, ...]:
    """Half-widths that hold given shares of galaxies like these, from absolute errors of predictions that did not know the answer.

    Of N errors the one of rank ceil((N + 1) level); the largest where N is too small for the level.
    """
    ordered = np.sort(errors)
    ranks = [min(int(np.ceil((len(errors) + 1) * level)), len(errors)) for level in levels]
    return tuple(float(ordered[rank - 1]) for rank in ranks)
