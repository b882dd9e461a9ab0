"""Real galaxies for training: pictures of label sets by the JPEG route, and survey stamps; pixels of all, answers of two sets only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from galpipe.commit import replace_folder
from galpipe.errors import BadData
from galpipe.labels.answers import MEASURED, TRAINING, HumanAnswers, human_answers, nothing
from galpipe.labels.groups import group_rows
from galpipe.labels.labelset import LabelSet, open_labels
from galpipe.labels.mapping import MappedVotes, mapped_votes
from galpipe.lvm.pack import Pack, concatenate, pack_stamps, read_pack, write_pack
from galpipe.stamps.external import read_stamps
from galpipe.stamps.pictures import middle, resize
from galpipe.stamps.render import to_rgb
from galpipe.stamps.stampset import StampSet

PICTURE = 144
"""Pixels on a side of the pictures that the teacher sees."""

CONDITIONS = ("psfsize_", "psfdepth_")


@dataclass(frozen=True)
class RealSet:
    """Real galaxies, N in all.

    Parameters
    ----------
    pack : Pack
        Without truth.
    pictures : ndarray of uint8, shape (N, 3, `PICTURE`, `PICTURE`)
    answers : HumanAnswers
    votes : tuple of MappedVotes
        The same people's answers in the tree of Galaxy Zoo DECaLS, one entry per set that has any.
    voted : tuple of ndarray of int64
        Rows that each entry of ``votes`` is about.
    sets : dict
        Galaxies and answered galaxies of each set, for the card.
    """

    pack: Pack
    pictures: NDArray[np.uint8]
    answers: HumanAnswers
    votes: tuple[MappedVotes, ...]
    voted: tuple[NDArray[np.int64], ...]
    sets: dict[str, dict[str, int]]


def real_set(folder: Path, without: tuple[str, ...] = (), unseen: tuple[str, ...] = ()) -> RealSet | None:
    """Read ``<folder>/stamps/*.fits`` and ``<folder>/labels/*.parquet``.

    Labels are read of the sets in `galpipe.labels.answers.TRAINING`, and of their galaxies only those that no measuring set shows.

    Parameters
    ----------
    folder : Path
    without : tuple of str
        Sets that measure as well, for figures on these very sets: their labels are not read, nor those of their galaxies elsewhere.
    unseen : tuple of str
        Sets whose pixels are left out as well: for figures on galaxies that the encoder has never seen.

    Returns
    -------
    RealSet or None
        None where there is neither.
    """
    parts = [_of_stamps(item) for item in read_stamps(sorted((folder / "stamps").glob("*.fits"))) if isinstance(item, StampSet)]
    facts = {"stamps": {"galaxies": sum(len(part[0]) for part in parts), "answered": 0}} if parts else {}
    votes: list[MappedVotes] = []
    voted: list[NDArray[np.int64]] = []
    labels = [open_labels(path) for path in sorted((folder / "labels").glob("*.parquet"))]
    groups = group_rows(labels).numbers if labels else ()
    names = [found.kind.name if found.kind is not None else found.path.stem for found in labels]
    measured, hidden = _shown_by(names, groups, (*MEASURED, *without)), _shown_by(names, groups, unseen)
    for found, name, numbers in zip(labels, names, groups, strict=True):
        rows = np.flatnonzero(~np.isin(numbers, hidden))
        if not len(rows):
            continue
        free = ~np.isin(numbers, measured) if name in TRAINING and name not in without else np.zeros(len(numbers), bool)
        part = _of_labels(found, name, free, rows)
        told = part[2].weights.sum(axis=1) > 0
        if told.any():
            voted.append(sum(len(item[0]) for item in parts) + np.flatnonzero(told))
            votes.append(mapped_votes(name, found.table).take(part[3][told]))
        parts.append(part)
        answered = int(told.sum())
        facts[found.path.stem] = {"galaxies": len(part[0]), "answered": answered}
    if not parts:
        return None
    answers = HumanAnswers(*(np.concatenate([getattr(part[2], name) for part in parts]) for name in ("values", "weights")))
    pack, pictures = concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    return RealSet(pack, pictures, answers, tuple(votes), tuple(voted), facts)


_Part = tuple[Pack, NDArray[np.uint8], HumanAnswers, NDArray[np.int64]]
"""Stamps, pictures, answers, and their rows in the set."""


def _shown_by(names: list[str], groups: Sequence[NDArray[np.int64]], sets: tuple[str, ...]) -> NDArray[np.int64]:
    """The galaxies (numbers of `group_rows`) that some sets show."""
    shown = [numbers for name, numbers in zip(names, groups, strict=True) if name in sets]
    return np.unique(np.concatenate(shown)) if shown else np.zeros(0, np.int64)


def _bare(pack: Pack) -> Pack:
    names = [name for name in pack.sources.column_names if name.startswith(CONDITIONS) or name == "pixscale"]
    return replace(pack, sources=pack.sources.select(names))


def _of_stamps(stamps: StampSet) -> _Part:
    drawn = np.stack([_picture(np.asarray(to_rgb(stamps.flux(index), stamps.bands))) for index in range(len(stamps))])
    return _bare(pack_stamps(stamps)), drawn, nothing(len(stamps)), np.arange(len(stamps))


def _of_labels(found: LabelSet, name: str, free: NDArray[np.bool_], wanted: NDArray[np.int64]) -> _Part:
    packs, drawn, rows = [], [], []
    for batch in found.batches(rows=wanted):
        if batch.stamps is not None:
            packs.append(_bare(pack_stamps(batch.stamps)))
            rows.append(batch.rows)
            if found.kind is None:
                drawn += [_picture(np.asarray(to_rgb(batch.stamps.flux(k), batch.stamps.bands))) for k in range(len(batch.rows))]
    if not packs:
        raise BadData("at least one picture that can be read", "none", file=str(found.path))
    kept = np.concatenate(rows)
    if found.kind is not None:
        span = found.kind.span
        drawn = [_picture(middle(item, span)) for _, item in found.pictures(kept) if isinstance(item, np.ndarray)]
    told = human_answers(name, found.table, str(found.path)).take(kept)
    mine = free[kept][:, None].astype(np.float32)
    return concatenate(packs), np.stack(drawn), HumanAnswers(told.values, told.weights * mine), kept


def _picture(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(resize(np.ascontiguousarray(picture), PICTURE).transpose(2, 0, 1))


def write_real(path: Path, found: RealSet) -> None:
    """Keep a real set in one folder."""
    with replace_folder(path) as aside:
        write_pack(aside / "pack", found.pack)
        np.save(aside / "pictures.npy", found.pictures, allow_pickle=False)
        np.save(aside / "values.npy", found.answers.values, allow_pickle=False)
        np.save(aside / "weights.npy", found.answers.weights, allow_pickle=False)
        for number, (votes, rows) in enumerate(zip(found.votes, found.voted, strict=True)):
            np.savez(aside / f"votes-{number}.npz", counts=votes.counts, leaders=votes.leaders, exact=votes.exact, rows=rows)
        (aside / "sets.json").write_text(json.dumps({"sets": found.sets, "votes": [votes.name for votes in found.votes]}))


def read_real(path: Path) -> RealSet:
    """Read back what `write_real` kept."""
    pictures, values, weights = (np.load(path / f"{name}.npy", allow_pickle=False) for name in ("pictures", "values", "weights"))
    told = json.loads((path / "sets.json").read_text())
    votes, voted = [], []
    for number, name in enumerate(told["votes"]):
        with np.load(path / f"votes-{number}.npz", allow_pickle=False) as kept:
            votes.append(MappedVotes(name, kept["counts"], kept["leaders"], kept["exact"]))
            voted.append(kept["rows"])
    return RealSet(read_pack(path / "pack"), pictures, HumanAnswers(values, weights), tuple(votes), tuple(voted), told["sets"])
