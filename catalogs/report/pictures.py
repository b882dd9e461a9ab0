"""Loads the model that draws restored images; apart from the page, because torch takes seconds to import."""

from __future__ import annotations

import logging
from pathlib import Path

from catalogs.report.galaxies import Pictures
from galpipe.errors import GalpipeError
from galpipe.lvm.predict import Predictor

_LOG = logging.getLogger(__name__)


def load_pictures(folder: Path, wanted_hash: str, batch: int = 32) -> Pictures | None:
    """The model that made a catalog, for the report's restored images.

    Parameters
    ----------
    folder : Path
        The model's folder.
    wanted_hash : str
        Hash of the model that the catalog is bound to.
    batch : int
        Stamps per pass.

    Returns
    -------
    Pictures or None
        None where the folder holds no model, or another one than the catalog's: its images would not be the catalog's.
    """
    try:
        predictor = Predictor.load(folder)
    except (GalpipeError, OSError) as error:
        _LOG.warning("no restored images in the report: %s", error)
        return None
    if predictor.model_hash != wanted_hash:
        _LOG.warning("no restored images in the report: the catalog's model is %s, %s holds %s", wanted_hash, folder, predictor.model_hash)
        return None
    if "restoration" not in predictor.model.settings.heads:
        return None
    return Pictures(lambda stamps, rows: predictor.restore(stamps, rows, batch), predictor.card)
