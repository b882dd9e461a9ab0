"""One Zarr v3 group per brick: three arrays of one shard each, two Parquet tables beside them, one writer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from galpipe.commit import remove_folder, replace_folder
from galpipe.errors import BadData
from galpipe.stamps.cut import CutResult
from galpipe.stamps.stampset import StampSet

ARRAYS = ("image", "invvar_code", "mask")
CHUNK_STAMPS = 32
"""Stamps per chunk inside the shard: one batch is read without decoding the rest."""

FORMAT = "galpipe-stamps-2"


def write_store(path: Path, result: CutResult, fingerprint: str) -> str:
    """Write a brick's stamps and outcomes in one step.

    Parameters
    ----------
    path : Path
        ``<brick>.zarr``; replaced if it exists.
    result : CutResult
    fingerprint : str
        Hash of everything the stamps were made from; `store_fingerprint` reads it back.

    Returns
    -------
    str
        sha256 of the content (arrays and tables, not their encoding).

    Raises
    ------
    ResourceFailure
        If the disk refuses the write.
    """
    stamps, content = result.stamps, content_hash(result)
    attrs: dict[str, Any] = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "content_hash": content,
        "rows": len(stamps),
        "counts": result.counts(),
        "bands": list(stamps.bands),
        "pixscale": stamps.pixscale,
        "softening": list(stamps.softening),
        "scale": [band.scale for band in stamps.codecs],
        "offset": [band.offset for band in stamps.codecs],
        "flux": "softening * sinh(code * scale + offset), nanomaggies per pixel, divided by mw_transmission of the source",
        "attrs": stamps.attrs,
    }
    with replace_folder(path) as aside:
        group = zarr.open_group(str(aside), mode="w", zarr_format=3, attributes=json.loads(json.dumps(attrs, allow_nan=False)))
        for name in ARRAYS:
            _write_array(group, name, getattr(stamps, name))
        pq.write_table(stamps.sources, aside / "sources.parquet", compression="zstd")
        pq.write_table(result.outcomes, aside / "outcomes.parquet", compression="zstd")
    return content


def _write_array(group: zarr.Group, name: str, values: NDArray[Any]) -> None:
    chunk = (min(CHUNK_STAMPS, max(1, len(values))), *values.shape[1:])
    shard = (max(1, -(-len(values) // chunk[0])) * chunk[0], *values.shape[1:])
    codec = BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.bitshuffle)
    array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunk, shards=shard, compressors=codec)
    if len(values):
        # one assignment of everything: a shard written twice, or by two writers, loses data silently
        array[:] = values


def read_store(path: Path) -> CutResult:
    """Read back what `write_store` wrote, bit by bit.

    Raises
    ------
    BadData
        If there is no readable store, or its content is not what was written: a missing shard reads as zeros.
    """
    attrs = _attrs(path)
    try:
        group = zarr.open_group(str(path), mode="r", zarr_format=3)
        arrays = [np.asarray(group[name][:]) for name in ARRAYS]  # type: ignore[index]
        sources, outcomes = pq.read_table(path / "sources.parquet"), pq.read_table(path / "outcomes.parquet")
    # zarr, its codecs and pyarrow raise many kinds on damaged files
    except Exception as error:
        raise BadData("a readable stamp store", f"{type(error).__name__}: {error}", file=str(path)) from error
    image, invvar_code, mask = arrays
    described = (tuple(attrs["bands"]), attrs["pixscale"], tuple(attrs["softening"]), attrs["attrs"])
    try:
        result = CutResult(StampSet(image, invvar_code, mask, sources, *described), outcomes)
    except BadData as error:
        raise BadData(error.expected, error.got, file=str(path)) from error
    content = content_hash(result)
    if content != attrs["content_hash"]:
        raise BadData(f"an undamaged stamp store, content {attrs['content_hash'][:12]}", f"content {content[:12]}", file=str(path))
    return result


def delete_store(path: Path) -> None:
    """Delete a store so that a half-deleted one is never seen under its name; nothing happens if it is not there."""
    remove_folder(path)


def _attrs(path: Path) -> dict[str, Any]:
    try:
        attrs: dict[str, Any] = json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, ValueError, KeyError) as error:
        raise BadData("a stamp store", f"{type(error).__name__}: {error}", file=str(path)) from error
    if attrs.get("format") != FORMAT:
        raise BadData(f"a stamp store of format {FORMAT}", repr(attrs.get("format")), file=str(path))
    return attrs


def store_fingerprint(path: Path) -> str:
    """The fingerprint of a store, from one small file; empty where there is no usable store."""
    try:
        return str(_attrs(path)["fingerprint"])
    except BadData:
        return ""


def store_summary(path: Path) -> dict[str, Any]:
    """Fingerprint, content hash, rows, counts and settings of a store, from one small file.

    Raises
    ------
    BadData
        If there is no store.
    """
    return _attrs(path)


def store_files(path: Path) -> list[str | None]:
    """The column ``file`` of a store's sources, without its arrays; nulls for stamps cut from bricks.

    Raises
    ------
    BadData
        If there is no readable store.
    """
    rows = int(_attrs(path)["rows"])
    try:
        with pq.ParquetFile(path / "sources.parquet") as file:
            named = "file" in file.schema_arrow.names
            names: list[str | None] = file.read(["file"])["file"].to_pylist() if named else [None] * rows
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData("a readable stamp store", f"{type(error).__name__}: {error}", file=str(path)) from error
    return names


def content_hash(result: CutResult) -> str:
    """sha256 of a result's arrays and tables, as 64 hexadecimal digits.

    The same for equal content, whatever the compression, the chunks of the tables and the bytes that lie under their nulls.
    """
    digest = hashlib.sha256()
    for name in ARRAYS:
        values = getattr(result.stamps, name)
        digest.update(f"{name}{values.shape}{values.dtype.str}".encode())
        digest.update(np.ascontiguousarray(values).data)
    for table in (result.stamps.sources, result.outcomes):
        for name in table.column_names:
            _hash_column(digest, name, table[name])
    return digest.hexdigest()


def _hash_column(digest: hashlib._Hash, name: str, column: pa.ChunkedArray | pa.Array) -> None:
    kind, present = column.type, column.drop_null()
    digest.update(f"{name}:{kind}:{len(column)}:{column.null_count}".encode())
    if column.null_count:
        digest.update(np.packbits(column.is_valid().to_numpy()).tobytes())
    if pa.types.is_string(kind):
        digest.update(pc.binary_length(present).to_numpy().astype("<i8").tobytes())
        digest.update("".join(present.to_pylist()).encode())
    elif pa.types.is_boolean(kind):
        digest.update(np.packbits(present.to_numpy()).tobytes())
    elif len(present):
        values = present.to_numpy()
        if values.dtype.kind == "O":
            raise TypeError(f"column {name!r} of a stamp table must be flat, got {kind}")
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
