"""A linear model on frozen features: what few labels can pay for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Floats = NDArray[np.float64]

STRENGTHS = np.logspace(-4, 1, 6)
"""Inverse regularization strengths that cross-validation chooses from; features are standardized."""

FOLDS = 5
ALPHAS = np.logspace(-1, 5, 13)


def class_scores(features: Floats, codes: NDArray[np.int64], test: Floats, classes: int, seed: int) -> Floats:
    """Multinomial logistic regression, its strength chosen by cross-validated log loss.

    Parameters
    ----------
    features : ndarray, shape (N, F)
    codes : ndarray of int64, shape (N,)
    test : ndarray, shape (M, F)
    classes : int
    seed : int
        Of the folds.

    Returns
    -------
    ndarray, shape (M, classes)
        Probabilities; 0 for a class of which the training rows have none.
    """
    present, counts = np.unique(codes, return_counts=True)
    folds = min(FOLDS, int(counts.min()))
    if folds < 2:
        model = LogisticRegression(C=0.01, max_iter=2000)
    else:
        split = StratifiedKFold(folds, shuffle=True, random_state=seed)
        model = LogisticRegressionCV(
            Cs=STRENGTHS, cv=split, scoring="neg_log_loss", max_iter=2000, l1_ratios=(0.0,), use_legacy_attributes=False
        )
    fitted = make_pipeline(StandardScaler(), model).fit(features, codes)
    scores = np.zeros((len(test), classes))
    scores[:, present] = fitted.predict_proba(test)
    return scores


def number_scores(features: Floats, values: Floats, test: Floats) -> Floats:
    """Ridge regression, its strength chosen by leave-one-out; shape (M,)."""
    return np.asarray(make_pipeline(StandardScaler(), RidgeCV(alphas=ALPHAS)).fit(features, values).predict(test), np.float64)
