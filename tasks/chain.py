"""Fingerprints, stage by stage: what a product was made from decides whether it is up to date.

files' sha256 ─▶ fetch ─▶ + cut and selection settings ─▶ cut ─▶ + model ─▶ infer ─▶ + schema ─▶ catalog
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from catalogs.schema import SCHEMA_VERSION
from galpipe.fingerprint import files_fingerprint, fingerprint, with_hole
from galpipe.survey.files import BrickFiles
from tasks.context import RunContext

__all__ = ["Chain", "Shared", "binding_hash", "chain", "chains", "chains_of", "fetch_fingerprint", "files_fingerprint"]


@dataclass(frozen=True)
class Chain:
    """The fingerprints of one unit's products under one run's settings."""

    fetch: str
    cut: str
    infer: str
    catalog: str


def fetch_fingerprint(files: BrickFiles) -> str:
    """`files_fingerprint` of fetched files."""
    return files_fingerprint(files.checksums, files.absent)


def chain(fetch: str, context: RunContext) -> Chain:
    """Fingerprints of everything made from fetched files.

    Parameters
    ----------
    fetch : str
        Fingerprint of the fetched files.
    context : RunContext
    """
    return chains(context)(fetch)


def chains(context: RunContext) -> Callable[[str], Chain]:
    """`chain` for many units: a whole release is compared with its ledger in seconds."""
    settings = context.settings
    return chains_of(Shared(asdict(settings.cut), settings.selection.identity(), settings.infer.batch, context.model_hash))


@dataclass(frozen=True)
class Shared:
    """What the chains of all bricks share.

    Parameters
    ----------
    cut, selection : mapping
        Settings in plain values.
    batch : int
    model : str
        The model's hash.
    schema : int
    versions : mapping of str to int
        Algorithm versions of an earlier run by stage; default is this code's.
    """

    cut: Mapping[str, Any]
    selection: Mapping[str, Any]
    batch: int
    model: str
    schema: int = SCHEMA_VERSION
    versions: Mapping[str, int] = field(default_factory=dict)


def chains_of(shared: Shared) -> Callable[[str], Chain]:
    """`chains` of any settings and model, today's or those of an earlier run."""
    version = shared.versions.get
    cut = with_hole("cut", {"cut": dict(shared.cut), "selection": dict(shared.selection)}, "fetch", version("cut"))
    infer = with_hole("infer", {"model": shared.model, "infer": {"batch": shared.batch}}, "cut", version("infer"))
    catalog = with_hole("catalog", {"schema": shared.schema}, "infer", version("catalog"))

    def complete(fetch: str) -> Chain:
        cut_from = cut(fetch)
        infer_from = infer(cut_from)
        return Chain(fetch, cut_from, infer_from, catalog(infer_from))

    return complete


def binding_hash(context: RunContext) -> str:
    """Hash of what every shard of a catalog must share: the model and the settings that decide rows, without the files."""
    settings = context.settings
    shared = {"cut": asdict(settings.cut), "selection": settings.selection.identity(), "batch": settings.infer.batch}
    return fingerprint("infer", shared | {"model": context.model_hash})
