"""What a row was made from: an id that hashes inputs only, and a record that spells them out.

Two runs on the same inputs give the same id, so rows stay equal; which runs made use of an id is kept beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galpipe.commit import Replace, replace_file
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout

_POSITIVE = (1 << 63) - 1


def canonical(inputs: Mapping[str, Any]) -> bytes:
    """The one JSON text of a set of inputs: sorted keys, no blanks, no NaN.

    Raises
    ------
    ConfigurationError
        If a value has no JSON form.
    """
    try:
        return json.dumps(inputs, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError("inputs with a JSON form", str(error)) from error


def provenance_id(inputs: Mapping[str, Any]) -> int:
    """Id of a set of inputs.

    Parameters
    ----------
    inputs : mapping
        Checksums, settings, model, label set, code version: never a time, host or run.

    Returns
    -------
    int
        First 8 bytes of the sha256 of the canonical JSON, without the sign bit: 0 to 2**63 - 1, so that it fits the signed
        64-bit integers of FITS and VOTable and never looks like an option on the command line.
    """
    return int.from_bytes(hashlib.sha256(canonical(inputs)).digest()[:8], "big") & _POSITIVE


def _folder(layout: Layout, name: str) -> Path:
    return layout.catalog(name) / "provenance"


def record_path(layout: Layout, name: str, identifier: int) -> Path:
    """Where a record lies; the middle folder keeps a release's 366,898 records out of one folder."""
    return _folder(layout, name) / f"{identifier % 1000:03d}" / f"{identifier}.json"


def records(layout: Layout, name: str) -> Iterator[tuple[int, Path]]:
    """Every record of a catalog: id and file, sorted by file."""
    for path in sorted(_folder(layout, name).glob("[0-9][0-9][0-9]/*.json")):
        if path.stem.isdigit():
            yield int(path.stem), path


def run_files(layout: Layout, name: str) -> list[Path]:
    """The files that say which ids a run used, named after the run."""
    return sorted((_folder(layout, name) / "runs").glob("*.parquet"))


def record(layout: Layout, name: str, inputs: Mapping[str, Any], replace_by: Replace = replace_file) -> int:
    """Write a record once and return its id; writing it again is free.

    Raises
    ------
    BadData
        If another set of inputs has this id.
    """
    identifier, text = provenance_id(inputs), canonical(inputs)
    path = record_path(layout, name, identifier)
    if not path.exists():
        with replace_by(path) as aside:
            aside.write_bytes(text)
    elif path.read_bytes() != text:
        raise BadData("the inputs recorded under this provenance id", "others", file=str(path))
    return identifier


def record_run(layout: Layout, name: str, run_id: str, identifiers: Iterable[int]) -> Path:
    """Write which ids a run used, one file per run."""
    path = _folder(layout, name) / "runs" / f"{run_id}.parquet"
    ids = pa.array(np.unique(np.fromiter(identifiers, np.int64)))
    with replace_file(path) as aside:
        pq.write_table(pa.table({"provenance_id": ids}), aside, compression="zstd")
    return path


def read_inputs(layout: Layout, name: str, identifier: int) -> dict[str, Any]:
    """The inputs behind an id.

    Raises
    ------
    ConfigurationError
        If this catalog has no such record.
    BadData
        If the record does not hash to its id.
    """
    path = record_path(layout, name, identifier)
    if not path.exists():
        raise ConfigurationError(f"a provenance id of catalog {name!r}", repr(identifier))
    try:
        inputs: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadData("a readable provenance record", str(error), file=str(path)) from error
    if provenance_id(inputs) != identifier:
        raise BadData(f"inputs that hash to {identifier}", f"{provenance_id(inputs)}", file=str(path))
    return inputs


def describe(layout: Layout, name: str, identifier: int) -> dict[str, Any]:
    """The inputs behind an id and the runs that used it.

    Returns
    -------
    dict
        ``id``, ``inputs``, ``runs`` (sorted run ids).

    Raises
    ------
    ConfigurationError
        If this catalog has no such record.
    BadData
        If the record does not hash to its id.
    """
    inputs = read_inputs(layout, name, identifier)
    runs = [file.stem for file in run_files(layout, name) if pq.read_table(file, filters=[("provenance_id", "=", identifier)]).num_rows]
    return {"id": identifier, "inputs": inputs, "runs": runs}
