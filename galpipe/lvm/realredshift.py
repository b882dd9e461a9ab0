"""Teach the parameters head real redshifts; from then on its columns are ``z_lvm_*`` instead of ``z_mock_*``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from galpipe.errors import BadData, ConfigurationError
from galpipe.heads.base import Truth
from galpipe.heads.parameters import Parameters, redshift_loss
from galpipe.heads.redshiftpdf import soft_bins
from galpipe.lvm.inputs import stamp_inputs
from galpipe.lvm.predict import Predictor
from galpipe.stamps.stampset import StampSet

LEAST_REDSHIFTS = 500
"""Galaxies below which a PDF of 64 bins cannot be learned, let alone calibrated."""

CALIBRATION_SHARE = 0.25
"""Part of the galaxies that calibrates and trains nothing."""

STEPS, GALAXIES, RATE, DECAY = 2000, 256, 2e-3, 1e-3
BATCH = 32


def learn_redshift(predictor: Predictor, stamps: StampSet, redshift: npt.NDArray[np.float64], source: str, seed: int = 0) -> dict[str, Any]:
    """Train and calibrate the last layer of the redshift on real redshifts, the rest of the model as it is; the model is changed.

    Parameters
    ----------
    predictor : Predictor
    stamps : StampSet
        N stamps.
    redshift : ndarray, shape (N,)
        From `galpipe.survey.redshiftmatch.match_redshifts`, say; NaN where not known.
    source : str
        What the redshifts are, for the card.
    seed : int
        Of the order and of the galaxies that calibrate.

    Returns
    -------
    dict
        For the model card: source, how many trained and calibrated, coverage and CRPS of the latter before and after calibration.

    Raises
    ------
    ConfigurationError
        If the model has no parameters head.
    BadData
        If there are fewer than 500 redshifts.
    """
    if "parameters" not in predictor.model.settings.heads:
        raise ConfigurationError("a model with the head 'parameters'", f"heads {predictor.model.settings.heads}")
    head = predictor.model.head("parameters")
    if not isinstance(head, Parameters):
        raise ConfigurationError("the parameters head of this package", type(head).__name__)
    known = np.flatnonzero(np.isfinite(redshift) & (redshift >= 0))
    if len(known) < LEAST_REDSHIFTS:
        raise BadData(f"at least {LEAST_REDSHIFTS} redshifts", f"{len(known)} of {len(redshift)} stamps have one", file=source)
    order = np.random.default_rng([seed, 23]).permutation(known)
    held, learn = np.sort(order[: int(CALIBRATION_SHARE * len(order))]), np.sort(order[int(CALIBRATION_SHARE * len(order)) :])
    _train(head, _latent(predictor, head, stamps.take(learn)), redshift[learn], seed)
    head.spectroscopic.fill_(1)
    told = _calibrate(predictor, head, stamps.take(held), redshift[held])
    return {"redshifts": source, "trained": len(learn), "calibrated": len(held)} | told


def _latent(predictor: Predictor, head: Parameters, stamps: StampSet) -> torch.Tensor:
    """What the last layer sees, shape (N, 128)."""
    parts = []
    with torch.inference_mode():
        for first in range(0, len(stamps), BATCH):
            inputs = stamp_inputs(stamps.take(np.arange(first, min(first + BATCH, len(stamps)))))
            hidden, _ = head.latent(predictor.model.encoder(inputs.to(predictor.device)))
            parts.append(hidden.cpu())
    return torch.cat(parts).clone()


def _train(head: Parameters, hidden: torch.Tensor, redshift: npt.NDArray[np.float64], seed: int) -> None:
    device = head.redshift.weight.device
    wanted = torch.from_numpy(soft_bins(redshift).astype(np.float32))
    optimizer = torch.optim.AdamW(head.redshift.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    rng = np.random.default_rng([seed, 29])
    for _ in range(STEPS):
        rows = torch.from_numpy(rng.integers(len(hidden), size=min(GALAXIES, len(hidden))))
        logits = head.redshift(hidden[rows].to(device))
        entropy, count = redshift_loss({"redshift": logits}, {"redshift": wanted[rows].to(device)})
        optimizer.zero_grad(set_to_none=True)
        (entropy / count.clamp(min=1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def _calibrate(predictor: Predictor, head: Parameters, stamps: StampSet, redshift: npt.NDArray[np.float64]) -> dict[str, float]:
    """Fit the PDF's calibration; what the table does not say (sizes, magnitudes) keeps its own."""
    gathered = []
    for first in range(0, len(stamps), BATCH):
        rows = np.arange(first, min(first + BATCH, len(stamps)))
        raw = predictor.raw(stamps.take(rows), BATCH)
        blank = np.zeros((len(rows), 0, 0))
        truth = Truth(pa.table({"redshift": redshift[rows]}), (), blank.astype(np.uint8), blank.astype(np.float32), blank.astype(bool))
        gathered.append(head.calibration(raw.heads["parameters"], truth, raw.context))
    return head.calibrate({name: np.concatenate([part[name] for part in gathered]) for name in gathered[0]})
