"""How well unusual stamps are told: out of domain, strong lenses, outliers; figures with what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import zoom

from galpipe.errors import BadData, ConfigurationError
from galpipe.heads.lens import area_under_curve, kinds
from galpipe.labels.labelset import open_labels
from galpipe.lvm.inputs import MODEL_BANDS
from galpipe.lvm.pack import read_pack
from galpipe.lvm.predict import Predictor
from galpipe.mock.lenses import inject
from galpipe.select.anomaly import NEIGHBOURS, found_within, outlier_score
from galpipe.select.neighbours import Space, search_exact
from galpipe.stamps.external import read_stamps
from galpipe.stamps.normalize import encode
from galpipe.stamps.stampset import StampSet, concatenate

Values = npt.NDArray[np.float64]

NOISE = {"g": 0.004, "r": 0.006, "z": 0.015}
"""Nanomaggies per pixel of stamps that hold nothing else."""

FULL_WELL = 100.0
"""Nanomaggies per pixel at which a star's core is cut off."""

PREVALENCE = 1e-3
"""Share of lenses for which purity is told; the real one is nearer to 1e-4 of bright early types."""

RECALLS = (0.25, 0.5, 0.75)

RARE = ("lens", "merger", "ring")
"""Kinds of the mock sky that count as rare."""

RARE_SHARE = 0.02
"""Share to which they are thinned out among the ordinary ones."""

LOOKS = (0.02, 0.05, 0.1)
"""Budgets of looks, as shares of the catalog."""

UNTOLD = ("psfsize_", "psfdepth_")


@dataclass(frozen=True)
class Told:
    """How far stamps of one sort are told from ordinary ones.

    Parameters
    ----------
    what, beside : str
        The stamps, and those they are compared with.
    auc : float
        Area under the curve of ``domain_distance``.
    median : float
        Median ``out_of_domain``.
    flagged : float
        Share with ``out_of_domain`` above 0.95; of in-domain stamps 0.05.
    count : int
    """

    what: str
    beside: str
    auc: float
    median: float
    flagged: float
    count: int


def held_stamps(packs: Sequence[Path], count: int, seed: int) -> StampSet:
    """Stamps of held-out packs with their truth, evenly from each.

    Raises
    ------
    ConfigurationError
        If there is no pack.
    """
    if not packs:
        raise ConfigurationError("packs of held-out mock stamps", "none")
    rng = np.random.default_rng([seed, 51])
    parts = []
    for path in packs:
        pack = read_pack(path)
        parts.append(pack.stamps().take(np.sort(rng.permutation(len(pack))[: -(-count // len(packs))])))
    names = set.intersection(*(set(part.sources.column_names) for part in parts))
    return concatenate([replace(part, sources=part.sources.select(sorted(names))) for part in parts])


def without_conditions(stamps: StampSet) -> StampSet:
    """The stamps as a file would give them: seeing and depth unknown."""
    kept = [name for name in stamps.sources.column_names if not name.startswith(UNTOLD)]
    return replace(stamps, sources=stamps.sources.select(kept))


def strange_stamps(stamps: StampSet, seed: int) -> dict[str, StampSet]:
    """The same stamps spoiled on purpose, each in one way."""
    rng = np.random.default_rng([seed, 52])
    sigma = np.array([NOISE[band] for band in stamps.bands])[:, None, None]
    size = stamps.size
    radius = np.hypot(*np.meshgrid(np.arange(size) - size // 2, np.arange(size) - size // 2))

    def saturated(flux: Values) -> Values:
        star = 10 ** rng.uniform(2.0, 3.5) * (1 + (radius / 3.0) ** 2) ** -2.2
        return np.asarray(flux + np.minimum(star, FULL_WELL))

    result = {
        "nothing but noise": _changed(stamps, lambda flux: rng.standard_normal(flux.shape) * sigma),
        "all zero": _changed(stamps, lambda flux: np.zeros_like(flux)),
        "saturated star in the middle": _changed(stamps, saturated),
        "pixels of 0.131 arcsec taken for 0.262": _changed(stamps, lambda flux: _scaled(flux, 2.0)),
        "pixels of 0.524 arcsec taken for 0.262": _changed(stamps, lambda flux: _scaled(flux, 0.5)),
    }
    for bit, band in enumerate(stamps.bands):
        result[f"no {band} band"] = replace(stamps, mask=stamps.mask | np.uint8(1 << bit))
    return result


def _scaled(flux: Values, factor: float) -> Values:
    """The image drawn larger or smaller (mirrored beyond its edge), flux per pixel following."""
    size = flux.shape[-1]
    drawn = np.stack([zoom(plane, factor, order=1) for plane in flux]) / factor**2
    side = drawn.shape[-1]
    if side >= size:
        first = side // 2 - size // 2
        return np.asarray(drawn[:, first : first + size, first : first + size])
    low = (size - side) // 2
    return np.pad(drawn, ((0, 0), (low, size - side - low), (low, size - side - low)), mode="symmetric")


def _changed(stamps: StampSet, change: Any) -> StampSet:
    image = np.empty_like(stamps.image)
    for row in range(len(stamps)):
        flux = change(stamps.flux(row).astype(np.float64))
        image[row] = np.stack([encode(plane, line) for plane, line in zip(flux, stamps.codecs, strict=True)])
    return replace(stamps, image=image)


def real_pictures(folder: Path, count: int, seed: int) -> StampSet | None:
    """Pictures of the label sets under ``folder/labels``, evenly from each, by the JPEG route; None without any."""
    rng = np.random.default_rng([seed, 53])
    files = sorted((folder / "labels").glob("*.parquet"))
    parts = []
    for path in files:
        labels = open_labels(path)
        rows = np.sort(rng.permutation(len(labels))[: -(-count // len(files))])
        parts += [batch.stamps for batch in labels.batches(rows=rows.tolist()) if batch.stamps is not None]
    facts = [replace(part, sources=part.sources.select(["pixscale"])) for part in parts]
    return concatenate(facts) if facts else None


def real_cubes(files: Sequence[Path]) -> StampSet | None:
    """Real stamps with survey pixels; files that do not read are left out."""
    sets = [item for item in read_stamps(sorted(files)) if not isinstance(item, BadData)]
    usable = [replace(item, sources=item.sources.select(["pixscale"])) for item in sets if item.bands == MODEL_BANDS]
    return concatenate(usable) if usable else None


def domain_figures(predictor: Predictor, stamps: StampSet, real: Path | None, seed: int) -> list[Told]:
    """Each sort of strange stamps beside ordinary held-out ones; real files beside such without seeing and depth, as they come."""
    ordinary, untold = _domain(predictor, stamps), _domain(predictor, without_conditions(stamps))
    told = [_told("held-out mock stamps", "themselves", ordinary, ordinary)]
    told.append(_told("the same without seeing and depth", "held-out mock stamps", untold, ordinary))
    for what, strange in strange_stamps(stamps, seed).items():
        told.append(_told(what, "held-out mock stamps", _domain(predictor, strange), ordinary))
    if real is None:
        return told
    pictures, cubes = real_pictures(real, len(stamps), seed), real_cubes(list((real / "stamps").glob("*.fits")))
    beside = "held-out mock stamps without seeing and depth"
    if cubes is not None:
        told.append(_told("real survey stamps", beside, _domain(predictor, cubes), untold))
    if pictures is not None:
        told.append(_told("real pictures, JPEG route", beside, _domain(predictor, pictures), untold))
    if cubes is not None and pictures is not None:
        told.append(_told("real pictures, JPEG route", "real survey stamps", _domain(predictor, pictures), _domain(predictor, cubes)))
    return told


def _domain(predictor: Predictor, stamps: StampSet) -> tuple[Values, Values]:
    table = predictor.predict(stamps)
    return tuple(table[name].to_numpy().astype(np.float64) for name in ("domain_distance", "out_of_domain"))  # type: ignore[return-value]


def _told(what: str, beside: str, own: tuple[Values, Values], other: tuple[Values, Values]) -> Told:
    labels = np.repeat([True, False], [len(own[0]), len(other[0])])
    area = area_under_curve(np.concatenate([own[0], other[0]]), labels)
    return Told(what, beside, area, float(np.median(own[1])), float((own[1] > 0.95).mean()), len(own[0]))


def lens_figures(predictor: Predictor, stamps: StampSet, real: Path | None, seed: int) -> dict[str, Any]:
    """The lens score on drawn lenses in held-out hosts, on the mock's own lenses and on real ones, against several sorts of others.

    ``purity`` is that at a prevalence of `PREVALENCE` among all held-out galaxies: recall p / (recall p + false positives (1 - p)). Where
    no galaxy lies above the threshold, one is assumed: the figure is then a bound from below.
    """
    rng = np.random.default_rng([seed, 54])
    kind = np.array(kinds(stamps.sources))
    hosts = stamps.take(np.flatnonzero(kind == "smooth_elliptical"))
    drawn = inject(hosts, rng)
    lenses = _scores(predictor, drawn.stamps)
    others = {
        "the same hosts": _scores(predictor, hosts),
        "hosts with blue companions": _scores(predictor, inject(hosts, rng, lensed=False).stamps),
        "all held-out galaxies": _scores(predictor, stamps.take(np.flatnonzero(kind != "lens"))),
    }
    result: dict[str, Any] = {"drawn_lenses": len(lenses), "auc": {what: _area(lenses, score) for what, score in others.items()}}
    everything = others["all held-out galaxies"]
    wide = drawn.einstein > 1.5
    result["auc_einstein_above_1.5"] = _area(lenses[wide], everything) if wide.any() else None
    own = stamps.take(np.flatnonzero(kind == "lens"))
    if len(own):
        result["auc_of_the_mock_s_own_lenses"] = {"auc": _area(_scores(predictor, own), everything), "count": len(own)}
    result["purity"] = [asdict(item) for item in purities(lenses, everything)]
    if real is not None:
        result["real"] = _real_lenses(predictor, real, everything)
    return result


@dataclass(frozen=True)
class Purity:
    """Purity at a recall; ``bound`` where no other galaxy was above the threshold."""

    recall: float
    false_positive_rate: float
    purity: float
    bound: bool


def purities(lenses: Values, others: Values) -> list[Purity]:
    """Purity among what is above a threshold, at `PREVALENCE`, for each of `RECALLS`."""
    result = []
    for wanted in RECALLS:
        threshold = np.quantile(lenses, 1 - wanted)
        above = int((others >= threshold).sum())
        recall, rate = float((lenses >= threshold).mean()), max(above, 1) / len(others)
        purity = recall * PREVALENCE / (recall * PREVALENCE + rate * (1 - PREVALENCE))
        result.append(Purity(recall, rate, purity, above == 0))
    return result


def _real_lenses(predictor: Predictor, real: Path, mock: Values) -> dict[str, Any]:
    """Score and rank of each real lens: the share of other real stamps and of mock galaxies that score at least as high."""
    cubes = real_cubes(list((real / "stamps").glob("*.fits")))
    others = _scores(predictor, cubes) if cubes is not None else np.zeros(0)
    rows = []
    for path in sorted((real / "lens").iterdir()):
        stamps = real_cubes([path])
        if stamps is None:
            continue
        score = float(_scores(predictor, stamps)[0])
        rows.append(
            {"file": path.name, "score": score, "above_mock": float((mock >= score).mean()), "above_real": int((others >= score).sum())}
        )
    return {"lenses": rows, "other_real_stamps": len(others)}


def _scores(predictor: Predictor, stamps: StampSet) -> Values:
    return np.asarray(predictor.predict(stamps)["lens_score"].to_numpy(), dtype=np.float64)


def _area(positive: Values, negative: Values) -> float:
    return area_under_curve(np.concatenate([positive, negative]), np.repeat([True, False], [len(positive), len(negative)]))


def outlier_figures(predictor: Predictor, stamps: StampSet, seed: int) -> list[dict[str, Any]]:
    """Recall and purity of the outlier score for each rare kind, thinned out to `RARE_SHARE`, at budgets of looks; chance beside them."""
    table = predictor.predict(stamps)
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
    kind = np.array(kinds(stamps.sources))
    ordinary = np.flatnonzero(~np.isin(kind, [*RARE, "", "star"]))
    rng = np.random.default_rng([seed, 55])
    result = []
    for name in RARE:
        own = rng.permutation(np.flatnonzero(kind == name))[: round(RARE_SHARE * len(ordinary))]
        if not len(own):
            continue
        rows = np.concatenate([own, ordinary])
        ids, some = np.arange(len(rows), dtype=np.int64), vectors[rows]
        score = outlier_score(search_exact([(ids, some)], Space.of(some), some, NEIGHBOURS + 1), ids)
        rare = ids < len(own)
        for share in LOOKS:
            looks = round(share * len(rows))
            recall, purity = found_within(score, rare, looks)
            figures = {"looks": looks, "of": len(rows), "recall": recall, "chance_recall": looks / len(rows), "purity": purity}
            result.append({"kind": name, "rare": len(own), "auc": area_under_curve(score, rare)} | figures)
    return result
