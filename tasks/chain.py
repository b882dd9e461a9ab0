"""Fingerprints, stage by stage: what a product was made from decides whether it is up to date.

files' sha256 ─▶ fetch ─▶ + cut and selection settings ─▶ cut ─▶ + model ─▶ infer ─▶ + schema ─▶ catalog
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from catalogs.schema import SCHEMA_VERSION
from galpipe.fingerprint import files_fingerprint, fingerprint
from galpipe.survey.files import BrickFiles
from tasks.context import RunContext

__all__ = ["Chain", "binding_hash", "chain", "fetch_fingerprint", "files_fingerprint"]


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
    settings = context.settings
    cut = fingerprint("cut", {"fetch": fetch, "cut": asdict(settings.cut), "selection": settings.selection.identity()})
    infer = fingerprint("infer", {"cut": cut, "model": context.model_hash, "infer": {"batch": settings.infer.batch}})
    return Chain(fetch, cut, infer, fingerprint("catalog", {"infer": infer, "schema": SCHEMA_VERSION}))


def binding_hash(context: RunContext) -> str:
    """Hash of what every shard of a catalog must share: the model and the settings that decide rows, without the files."""
    settings = context.settings
    shared = {"cut": asdict(settings.cut), "selection": settings.selection.identity(), "batch": settings.infer.batch}
    return fingerprint("infer", shared | {"model": context.model_hash})
