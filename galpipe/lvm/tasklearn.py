"""Fitting the head of a label task: on frozen embeddings, or together with the encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from galpipe.errors import BadData
from galpipe.evaluate.linear import linear_solution
from galpipe.evaluate.supervised import Learner, Recipe, fit
from galpipe.heads.classes import Classes
from galpipe.labels.labelset import Dropped, LabelSet
from galpipe.lvm.encoder import Encoder
from galpipe.lvm.inputs import MODEL_BANDS, Inputs, stamp_inputs
from galpipe.lvm.model import GalaxyModel
from galpipe.stamps.stampset import StampSet

Floats = NDArray[np.float64]

BATCH = 32


@dataclass(frozen=True)
class Part:
    """Some rows of a label set, ascending, and their answers (codes, or numbers); ``dropped`` gathers those that cannot be read.

    Parameters
    ----------
    labels : LabelSet
    rows : ndarray of int64, shape (K,)
    answers : ndarray of float64, shape (K,)
    dropped : list of Dropped
    """

    labels: LabelSet
    rows: NDArray[np.int64]
    answers: Floats
    dropped: list[Dropped]

    def __len__(self) -> int:
        return len(self.rows)

    def stamps(self) -> Iterator[tuple[Floats, StampSet]]:
        """Batches of answers (B,) and stamps.

        Raises
        ------
        BadData
            If no row can be read.
        """
        nothing = True
        for batch in self.labels.batches(BATCH, self.rows):
            self.dropped.extend(batch.dropped)
            if batch.stamps is not None:
                nothing = False
                yield self.answers[np.isin(self.rows, batch.rows)], batch.stamps
        if nothing:
            raise BadData("images that can be read", f"none of {len(self.rows)}", file=str(self.labels.path))


def embeddings(encoder: Encoder, part: Part) -> tuple[Floats, Floats]:
    """Embeddings (K, E) and answers (K,) of the rows that can be read."""
    vectors, found = [], []
    for answers, stamps in part.stamps():
        with torch.inference_mode():
            vectors.append(encoder(stamp_inputs(stamps)).embedding.double().numpy())
        found.append(answers)
    return np.concatenate(vectors), np.concatenate(found)


def fit_linear(head: Classes, vectors: Floats, answers: Floats, seed: int) -> None:
    """Fit the head: logistic or ridge regression on the embedding, its strength chosen by cross-validation."""
    # one unit for all axes: their own lengths say what counts (`galpipe.lvm.metric`)
    center, spread = vectors.mean(axis=0), np.full(vectors.shape[1], max(float(np.sqrt(vectors.var(axis=0).mean())), 1e-3))
    wanted = answers if head.classes else (answers - head.task.zero) / head.task.unit
    weight, bias = linear_solution((vectors - center) / spread, wanted, len(head.classes), seed)
    with torch.no_grad():
        for place, values in ((head.center, center), (head.spread, spread), (head.linear.weight, weight), (head.linear.bias, bias)):
            place.copy_(torch.from_numpy(np.asarray(values, np.float32)))


def late_parts(encoder: Encoder) -> list[nn.Module]:
    """What ``partial`` trains: the last stage (of a timm encoder its last part with weights), its norm and the embedding."""
    parts = encoder.stages.children() if encoder.is_swin else next(encoder.stages.children()).children()
    last = [part for part in parts if next(part.parameters(), None) is not None][-1]
    return [last, encoder.norms[-1], encoder.embed]


def train_on(model: GalaxyModel, head: Classes, part: Part, how: tuple[bool, Recipe, int]) -> None:
    """Train the head and the encoder, all of it or `late_parts`; validation within the part chooses the epoch.

    Parameters
    ----------
    model : GalaxyModel
        Changed.
    head : Classes
        Of the model.
    part : Part
    how : tuple
        Whether all of the encoder is trained, by which recipe, and the seed.
    """
    whole_encoder, recipe, seed = how
    torch.manual_seed(seed)
    read = [(answers, stamp_inputs(stamps)) for answers, stamps in part.stamps()]
    answers = np.concatenate([item for item, _ in read])
    packed = torch.cat([torch.cat([inputs.pixels, inputs.valid], dim=1) for _, inputs in read])
    # the fit wants a test example: one only, as calibration and scores come from the finished model
    conditions = torch.cat([*(inputs.conditions for _, inputs in read), read[0][1].conditions[:1]])
    encoder = model.encoder
    encoder.requires_grad_(False)
    for item in [encoder] if whole_encoder else late_parts(encoder):
        item.requires_grad_(True)

    def forward(examples: Tensor, rows: Tensor) -> Tensor:
        bands = len(MODEL_BANDS)
        inputs = Inputs(examples[:, :bands], examples[:, bands:], conditions[rows], torch.ones(len(examples)))
        answer: Tensor = head(encoder(inputs))["answer"]
        return answer

    with torch.inference_mode():
        vectors = np.concatenate([encoder(inputs).embedding.double().numpy() for _, inputs in read])

    def begin(rows: NDArray[np.int64]) -> None:
        fit_linear(head, vectors[rows], answers[rows], seed)

    learner = Learner(nn.ModuleList([encoder, head]), forward, begin)
    fit(learner, ((packed, packed[:1]), answers, len(head.classes)), (recipe, seed))
    model.requires_grad_(False)
    model.eval()
