"""Cut: fetched files to one Zarr store of stamps. Runs on Dask workers."""

from __future__ import annotations

from catalogs.evidence import cut_receipt
from galpipe.errors import NoWork
from galpipe.stamps.cut import BrickCut
from galpipe.stamps.store import store_fingerprint, write_store
from galpipe.survey.files import load_brick_files
from galpipe.unit import Receipt, Unit
from tasks.chain import chain, fetch_fingerprint
from tasks.context import RunContext, guarded


def cut_unit(context: RunContext, unit: Unit) -> Receipt:
    """Cut every selected source of a brick, unless the store on disk was made from the same files and settings.

    Parameters
    ----------
    context : RunContext
    unit : Unit
        Its files are under ``bricks/``.

    Returns
    -------
    Receipt
        ``rows`` counts stamps; ``counts`` has ``sources`` (rows of the Tractor table) and what became of them.
    """
    return guarded(unit, "cut", lambda: _cut(context, unit))


def _cut(context: RunContext, unit: Unit) -> Receipt:
    layout = context.layout
    files = load_brick_files(layout.brick_folder(unit), unit)
    if files is None:
        raise RuntimeError(f"{unit}: cut before it was fetched")
    links = chain(fetch_fingerprint(files), context)
    path = layout.stamps(unit, context.settings.cut.name)
    if context.force or store_fingerprint(path) != links.cut:
        try:
            cut = BrickCut(files, context.settings.cut, context.settings.selection)
        except NoWork as nothing:
            # settled, with its fingerprint: a later run need not look again
            return Receipt(unit, "cut", "no_work", fingerprint=links.cut, file=nothing.file, reason=str(nothing))
        write_store(path, cut, links.cut)
    return cut_receipt(layout, unit, path)
