"""Rows of a brick: what the survey and the stamps say, joined with what the heads answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogs.derive import derive
from catalogs.schema import MEASURED_PREFIXES, MEASURED_UNITS, assemble
from galpipe.columns import Column
from galpipe.errors import BadData, ConfigurationError
from galpipe.unit import Unit

FROM_THE_MODEL = ("embedding", "source_id", "bands_used", "degraded")
"""Base columns that predictions may bring; what the model says it used goes before what the stamps suggest."""


@dataclass(frozen=True)
class Origin:
    """Where rows come from.

    Parameters
    ----------
    unit : Unit
    provenance_id : int
        From `catalogs.provenance.provenance_id`.
    model_bands : tuple of str
        Bands that the model was trained on, in its order.
    """

    unit: Unit
    provenance_id: int
    model_bands: tuple[str, ...] = ("g", "r", "z")


def build_shard(sources: pa.Table, predictions: pa.Table, heads: Sequence[Column], origin: Origin) -> pa.Table:
    """Join what the survey and the stamp say with what the heads answered, in the catalog's schema and order.

    Parameters
    ----------
    sources : pyarrow.Table
        The predicted rows: columns of `galpipe.survey.tractor.tractor_subset` and per-stamp columns. Base columns that it
        lacks are null; columns that the catalog does not have are left out.
    predictions : pyarrow.Table
        Same rows in the same order, exactly the heads' columns, with `FROM_THE_MODEL` as options.
    heads : sequence of Column
        Columns declared by the heads.
    origin : Origin

    Returns
    -------
    pyarrow.Table
        Schema ``assemble(heads)``, rows in the order given.

    Raises
    ------
    ConfigurationError
        If predictions lack a declared column or have one that no head declares.
    BadData
        If the two tables are not of the same rows, an id is missing or repeated, or a value does not fit its type.
    """
    _check_rows(sources, predictions, origin.unit)
    _check_columns(predictions, heads)
    schema = assemble(heads)
    given = {name: sources[name] for name in sources.column_names}
    given |= derive(sources, origin.unit, origin.model_bands)
    given |= {name: predictions[name] for name in predictions.column_names if name != "source_id"}
    given |= _without_truncated(given, heads)
    given["provenance_id"] = pa.array(np.full(sources.num_rows, origin.provenance_id, np.int64))
    columns = [_fit(given.get(item.name), item, sources.num_rows, origin.unit) for item in schema]
    return pa.table(columns, schema=schema)


def renew_shard(old: pa.Table, answers: pa.Table, heads: Sequence[Column], origin: Origin) -> pa.Table:
    """Rows with some columns answered anew and every other one carried over.

    Parameters
    ----------
    old : pyarrow.Table
        Rows of a shard.
    answers : pyarrow.Table
        Same rows in the same order, columns that take the place of the old ones or are new.
    heads : sequence of Column
        Every column declared by the heads there are now; others of ``old`` are left out.
    origin : Origin

    Returns
    -------
    pyarrow.Table
        As `build_shard` would make it.

    Raises
    ------
    BadData
        If there is no value for a declared column, or it does not fit its type.
    """
    schema = assemble(heads)
    given = {name: old[name] for name in old.column_names} | {name: answers[name] for name in answers.column_names}
    own = [column for column in heads if column.name in answers.column_names]
    given |= _without_truncated(given, own)
    given["provenance_id"] = pa.array(np.full(old.num_rows, origin.provenance_id, np.int64))
    lost = [name for name in schema.names if name not in given]
    if lost or answers.num_rows not in (0, old.num_rows):
        got = f"{answers.num_rows} answers, nothing for {lost[:3]}"
        raise BadData(f"{old.num_rows} rows with every declared column", got, unit=str(origin.unit))
    return pa.table([_fit(given[item.name], item, old.num_rows, origin.unit) for item in schema], schema=schema)


def _without_truncated(given: Mapping[str, pa.ChunkedArray | pa.Array], heads: Sequence[Column]) -> dict[str, pa.ChunkedArray | pa.Array]:
    """The heads' sizes, fluxes and angles, null where the stamp cuts the galaxy off (science.md section 1)."""
    cut_off = pc.fill_null(given["stamp_truncated"], False)
    whole = [item.name for item in heads if item.unit in MEASURED_UNITS and item.name.startswith(MEASURED_PREFIXES)]
    return {name: pc.if_else(cut_off, pa.scalar(None, given[name].type), given[name]) for name in whole}


def _check_rows(sources: pa.Table, predictions: pa.Table, unit: Unit) -> None:
    if sources.num_rows != predictions.num_rows:
        raise BadData(f"{sources.num_rows} predictions", f"{predictions.num_rows}", unit=str(unit))
    ids = sources["source_id"]
    if ids.null_count or len(pc.unique(ids)) != len(ids):
        raise BadData(
            "one distinct source_id per row", f"{ids.null_count} null, {len(pc.unique(ids))} of {len(ids)} distinct", unit=str(unit)
        )
    if "source_id" in predictions.column_names and not predictions["source_id"].equals(ids):
        raise BadData("predictions in the order of the sources", "other ids or another order", unit=str(unit))


def _check_columns(predictions: pa.Table, heads: Sequence[Column]) -> None:
    declared, came = {column.name for column in heads}, set(predictions.column_names) - set(FROM_THE_MODEL)
    if declared != came:
        missing, extra = sorted(declared - came), sorted(came - declared)
        raise ConfigurationError("exactly the columns that the heads declare", f"missing {missing}, undeclared {extra}")


def _fit(values: pa.ChunkedArray | pa.Array | None, item: pa.Field, rows: int, unit: Unit) -> pa.Array:
    if values is None:
        return pa.nulls(rows, item.type)
    try:
        result = pc.cast(values, item.type, safe=pa.types.is_integer(item.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadData(f"{item.type} in column {item.name!r}", str(error), unit=str(unit)) from error
    return result.combine_chunks() if isinstance(result, pa.ChunkedArray) else result
