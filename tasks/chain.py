"""Fingerprints, stage by stage: what a product was made from decides whether it is up to date.

files' sha256 ─▶ fetch ─▶ + cut and selection settings ─▶ cut ─▶ + model ─▶ infer ─▶ + schema ─▶ catalog
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from catalogs.schema import SCHEMA_VERSION
from galpipe.fingerprint import files_fingerprint, fingerprint, with_hole
from galpipe.survey.files import BrickFiles
from tasks.context import RunContext

__all__ = ["Chain", "binding_hash", "chain", "chains", "fetch_fingerprint", "files_fingerprint"]


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
    cut = with_hole("cut", {"cut": asdict(settings.cut), "selection": settings.selection.identity()}, "fetch")
    infer = with_hole("infer", {"model": context.model_hash, "infer": {"batch": settings.infer.batch}}, "cut")
    catalog = with_hole("catalog", {"schema": SCHEMA_VERSION}, "infer")

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
