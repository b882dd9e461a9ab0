"""Strong lenses: a score learned from lensed arcs drawn into early types of the training sky, on the frozen encoder.

No labels exist, so this is a mock answer throughout. What the classifier reads: the encoder's maps around the source, and rings of the
pixels themselves in which the azimuthal median (the lens galaxy's own light) is taken away, because arcs are faint, blue and tangential.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from galpipe.columns import Column
from galpipe.heads.base import Frozen, Head, Outputs, RawOutputs, Score, StampContext, Truth
from galpipe.lvm.encoder import Features, ModelSettings, full_precision
from galpipe.lvm.inputs import MODEL_BANDS, PADDED_SIZE, float_column, stamp_inputs
from galpipe.mock.lenses import inject
from galpipe.stamps.stampset import StampSet

RINGS = (2, 4, 6, 8, 11, 14)
"""Edges in pixels of the rings around the source; 14 pixels are 3.7 arcsec."""

RING_FACTS = 8
"""Numbers per ring."""

WINDOW = 40
"""Pixels on a side of the square in which the encoder's maps are pooled."""

HIDDEN = 64

HOSTS = 2000
"""Early types of the training sky that arcs are drawn into at most; as many companions and other galaxies stand beside them."""

STEPS, BATCH, RATE, DECAY = 1500, 128, 2e-3, 1e-2

ENCODED = 32
"""Stamps per encoder pass."""

HELD = 0.2
"""Share of the drawn stamps, by host, that only measure."""

Values = npt.NDArray[np.float64]


def ring_facts(pixels: Tensor, valid: Tensor) -> Tensor:
    """What stands out of the azimuthal median in each ring.

    Parameters
    ----------
    pixels, valid : Tensor
        Shape (N, 3, P, P), asinh units, the source at ``[P // 2, P // 2]``.

    Returns
    -------
    Tensor
        Shape (N, rings * 8): per ring the median and spread of g, the spread and the largest 3 x 3 mean of its excess, of the excess of
        g over r and over z, and the cosine amplitude of the second harmonic of the color excess.
    """
    half = RINGS[-1] + 2
    middle = pixels.shape[-1] // 2
    place = slice(middle - half, middle + half + 1)
    near, seen = pixels[:, :, place, place].float(), valid[:, :, place, place].float()
    near = near * seen
    maps = torch.stack([near[:, 0], near[:, 0] - near[:, 1], near[:, 0] - near[:, 2]], dim=1)
    smooth = functional.avg_pool2d(maps, 3, stride=1, padding=1)
    line = torch.arange(-half, half + 1, device=pixels.device, dtype=torch.float32)
    radius = torch.hypot(line[None, :], line[:, None])
    double = 2 * torch.atan2(line[:, None].expand_as(radius), line[None, :].expand_as(radius))
    facts = []
    for low, high in zip((0, *RINGS), RINGS, strict=False):
        inside = (radius >= low) & (radius < high)
        values = smooth[:, :, inside]
        excess = values - values.median(dim=2, keepdim=True).values
        angle = double[inside]
        turned = torch.hypot((excess[:, 1] * torch.cos(angle)).mean(dim=1), (excess[:, 1] * torch.sin(angle)).mean(dim=1))
        facts += [values.median(dim=2).values[:, 0], excess.std(dim=2)[:, 0], excess.amax(dim=2)[:, 0]]
        facts += [excess.std(dim=2)[:, 1], excess.amax(dim=2)[:, 1], excess.std(dim=2)[:, 2], excess.amax(dim=2)[:, 2], turned]
    return torch.stack(facts, dim=1)


def described(features: Features) -> Tensor:
    """What the classifier reads, shape (N, F): embedding, pooled maps around the source, ring facts, central magnitudes."""
    parts = [features.embedding.float(), features.photometry.float()]
    for map_ in (*features.scales[:2], features.decoded):
        side = round(map_.shape[-1] * WINDOW / PADDED_SIZE)
        first = (map_.shape[-1] - side) // 2
        near = map_[:, :, first : first + side, first : first + side].float().flatten(2)
        parts += [near.mean(dim=2), near.amax(dim=2), near.std(dim=2)]
    parts.append(ring_facts(features.inputs.pixels, features.inputs.valid))
    return torch.cat(parts, dim=1)


class Lens(Head):
    """A small classifier on frozen features."""

    name = "lens"

    mean: Tensor
    spread: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        one, two, _, _ = settings.stage_dims
        size = settings.embedding + 4 * len(MODEL_BANDS) + 3 * (one + two + settings.decoder) + RING_FACTS * len(RINGS)
        self.hidden = nn.Sequential(nn.Linear(size, HIDDEN), nn.GELU(), nn.Dropout(0.3), nn.Linear(HIDDEN, 1))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    @classmethod
    def build(cls, settings: ModelSettings) -> Lens:
        """Make the head."""
        return cls(settings)

    def forward(self, features: Features) -> Outputs:
        """``logit`` of shape (N,)."""
        with full_precision(features.embedding):
            return {"logit": self.logit(described(features).detach())}

    def logit(self, values: Tensor) -> Tensor:
        """Log odds in a set of as many lenses as others, shape (N,)."""
        return self.hidden(((values - self.mean) / self.spread).clamp(-6.0, 6.0))[:, 0]

    def targets(self, truth: Truth) -> Outputs:
        """Nothing is learned with the other heads."""
        return {}

    def loss(self, outputs: Outputs, targets: Outputs) -> Tensor:
        """Zero: see `fit_frozen`."""
        return outputs["logit"].new_zeros(())

    def fit_frozen(self, frozen: Frozen) -> dict[str, float]:
        """Draw arcs into early types of the training sky, and learn to tell them from the same hosts, companions and other galaxies."""
        rng = np.random.default_rng([frozen.seed, 41])
        values, is_lens, group = examples(frozen, rng)
        if not len(is_lens):
            return {"hosts": 0.0}
        held = np.isin(group, rng.permutation(np.unique(group))[: round(HELD * len(np.unique(group)))])
        train = torch.from_numpy(np.flatnonzero(~held))
        self.mean.copy_(values[train].mean(dim=0))
        self.spread.copy_(values[train].std(dim=0).clamp(min=1e-3))
        self._descend(values[train], torch.from_numpy(is_lens[~held].astype(np.float32)), frozen.seed)
        with torch.inference_mode():
            score = self.logit(values.to(self.mean.device)).cpu().numpy().astype(np.float64)
        return {
            "lenses": float(is_lens.sum()),
            "others": float((~is_lens).sum()),
            "auc": area_under_curve(score[~held], is_lens[~held]),
            "auc_held": area_under_curve(score[held], is_lens[held]),
        }

    def _descend(self, values: Tensor, wanted: Tensor, seed: int) -> None:
        device = self.mean.device
        values, wanted = values.to(device), wanted.to(device)
        share = wanted.mean()
        weight = torch.where(wanted > 0, 0.5 / share, 0.5 / (1 - share))
        optimizer = torch.optim.AdamW(self.hidden.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        self.hidden.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _ in range(STEPS):
                rows = torch.randint(len(values), (min(BATCH, len(values)),)).to(device)
                loss = functional.binary_cross_entropy_with_logits(self.logit(values[rows]), wanted[rows], weight[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        self.hidden.eval()

    def columns(self) -> tuple[Column, ...]:
        """The score."""
        text = "Strong-lens score, 0 to 1: in a set of as many drawn lenses as other galaxies the share of lenses; lenses are far rarer"
        return (Column("lens_score", pa.float32(), "", text, 2e-2, "mock only"),)

    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """The logistic function of the log odds."""
        return {"lens_score": pa.array((1 / (1 + np.exp(-outputs["logit"].astype(np.float64)))).astype(np.float32))}

    def score(self, predicted: pa.Table, truth: Truth, training: pa.Table) -> list[Score]:
        """Area under the curve on the lenses that the mock sky has by itself, drawn in another way than the training ones."""
        is_lens = np.array(kinds(truth.table)) == "lens"
        if not is_lens.any() or is_lens.all():
            return []
        area = area_under_curve(float_column(predicted, "lens_score", predicted.num_rows), is_lens)
        return [Score("lens_score: area under the curve", "", area, 0.5, True, int(is_lens.sum()), "one score for every stamp")]


def kinds(table: pa.Table) -> list[str]:
    """True kind of each source, empty where unknown."""
    if "kind" not in table.column_names:
        return [""] * table.num_rows
    return [kind or "" for kind in table["kind"].to_pylist()]


def examples(frozen: Frozen, rng: np.random.Generator) -> tuple[Tensor, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Features of drawn lenses and of what is none.

    Hosts are early types of the training sky. Each gives a lens and the plain host; then hosts with blue companions, and galaxies of every
    other kind; the lenses that the sky has by itself are kept out on both sides.

    Returns
    -------
    values : Tensor, shape (M, F)
    is_lens : ndarray of bool, shape (M,)
    group : ndarray of int64, shape (M,)
        The same for stamps of one host, so that no host is on both sides of a split.
    """
    kind = np.array(kinds(frozen.stamps.sources))
    hosts = rng.permutation(np.flatnonzero(kind == "smooth_elliptical"))[:HOSTS]
    others = rng.permutation(np.flatnonzero(~np.isin(kind, ["smooth_elliptical", "lens", ""])))[: len(hosts)]
    parts: list[Tensor] = []
    for first in range(0, len(hosts), ENCODED):
        some = frozen.stamps.take(hosts[first : first + ENCODED])
        parts += [
            _encoded(frozen, inject(some, rng).stamps),
            _encoded(frozen, some),
            _encoded(frozen, inject(some, rng, lensed=False).stamps),
        ]
    groups = [np.tile(hosts[first : first + ENCODED], 3) for first in range(0, len(hosts), ENCODED)]
    labels = [np.repeat([True, False, False], len(hosts[first : first + ENCODED])) for first in range(0, len(hosts), ENCODED)]
    for first in range(0, len(others), ENCODED):
        rows = others[first : first + ENCODED]
        parts.append(_encoded(frozen, frozen.stamps.take(rows)))
        groups.append(rows)
        labels.append(np.zeros(len(rows), dtype=bool))
    if not parts:
        return torch.zeros(0, 1), np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64)
    return torch.cat(parts), np.concatenate(labels), np.concatenate(groups)


def _encoded(frozen: Frozen, stamps: StampSet) -> Tensor:
    return described(frozen.encode(stamp_inputs(stamps))).cpu()


def area_under_curve(score: Values, positive: npt.NDArray[np.bool_]) -> float:
    """Chance that a positive's score is above another's (ties count half)."""
    from sklearn.metrics import roc_auc_score

    if positive.all() or not positive.any():
        return 0.5
    return float(roc_auc_score(positive, score))
