"""Prediction: stamps in, one Arrow row per stamp out, every head from one encoder pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from galpipe.columns import Column
from galpipe.config import SOFTENING, SURVEY_PIXSCALE
from galpipe.errors import BadData
from galpipe.heads.bands import LEAST_VALID
from galpipe.heads.base import FloatArray, RawOutputs, StampContext
from galpipe.heads.restoration import Restoration
from galpipe.lvm.inputs import MARGIN, MODEL_BANDS, Inputs, stamp_inputs
from galpipe.lvm.model import Answers, GalaxyModel, device_of
from galpipe.lvm.weights import load_model
from galpipe.stamps.stampset import StampSet


@dataclass(frozen=True)
class RawBatch:
    """Raw outputs of a batch as arrays, rows of the padding left out.

    Parameters
    ----------
    embedding : ndarray
        Float32, shape (N, E).
    heads : dict
        Raw outputs by head name.
    context : StampContext
        What decoding may know.
    """

    embedding: FloatArray
    heads: dict[str, RawOutputs]
    context: StampContext


@dataclass(frozen=True)
class Restored:
    """Restored images, for people: nothing is measured on them.

    Parameters
    ----------
    image : ndarray
        Float32, shape (K, 3, S, S), nanomaggies per pixel.
    sigma : ndarray
        The same shape and unit: half width of the interval that holds 68 % of the true values.
    filled : ndarray
        Bool, the same shape: pixels without data, which the model filled.
    """

    image: FloatArray
    sigma: FloatArray
    filled: npt.NDArray[np.bool_]


class Predictor:
    """A loaded model on its device.

    Parameters
    ----------
    model : GalaxyModel
    card : dict
    model_hash : str
    device : torch.device
    """

    def __init__(self, model: GalaxyModel, card: dict[str, Any], model_hash: str, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.card, self.model_hash, self.device = card, model_hash, device

    @classmethod
    def load(cls, folder: Path | None = None, device: str = "auto", threads: int = 0) -> Predictor:
        """Load a model folder; None takes the weights that come with the package.

        Parameters
        ----------
        folder : Path, optional
        device : str
            ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        threads : int
            Torch threads of this process, fixed so that sums have one order; 0 leaves them as they are.
        """
        loaded = load_model(folder)
        if threads > 0:
            torch.set_num_threads(threads)
        place = device_of(device)
        if place.type == "cuda":
            _steady_sums()
        return cls(loaded.model, loaded.card, loaded.model_hash, place)

    def columns(self) -> tuple[Column, ...]:
        """Columns of `predict`, in order."""
        own = [column for head in self.model.head_list() for column in head.columns()]
        size = self.model.settings.embedding
        used = "Bands with enough valid pixels among those that the model knows"
        degraded = f"A band that the model was trained on ({', '.join(MODEL_BANDS)}) is missing"
        return (
            *own,
            Column("bands_used", pa.string(), "", used),
            Column("degraded", pa.bool_(), "", degraded),
            Column("embedding", pa.list_(pa.float16(), size), "", "What the encoder saw, for search and new heads", 2e-2, "mock only"),
        )

    def predict(self, stamps: StampSet, batch: int = 32, only: Sequence[str] | None = None) -> pa.Table:
        """Answers of every head.

        Parameters
        ----------
        stamps : StampSet
            N stamps.
        batch : int
            Stamps per pass; the last batch is filled up, so that every pass has the same shape.
        only : sequence of str, optional
            Heads to ask; the others' columns are then missing.

        Returns
        -------
        pyarrow.Table
            N rows in the order of ``stamps``, columns as `columns` says.

        Raises
        ------
        ConfigurationError
            If the stamps are not of the model's size.
        """
        schema = self._schema(only)
        parts = []
        for first in range(0, len(stamps), batch):
            some = stamps.take(np.arange(first, min(first + batch, len(stamps))))
            parts.append(_compact(self._table(self.raw_inputs(stamp_inputs(some), some, batch, only), schema)))
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def predict_kept(self, rows: pa.Table, batch: int, only: Sequence[str]) -> pa.Table:
        """Answers of heads that need no pixels, from a catalog's own rows: the same as from the stamps.

        Parameters
        ----------
        rows : pyarrow.Table
            N rows of a shard, in its order, with ``embedding`` and ``bands_used``.
        batch : int
            As the shard was made with.
        only : sequence of str
            Heads whose ``needs_pixels`` is false.

        Returns
        -------
        pyarrow.Table
            N rows, the columns of these heads.

        Raises
        ------
        BadData
            If the embeddings are not of this model's length.
        """
        schema, parts = self._schema(only), []
        embedding = _embeddings(rows, self.model.settings.embedding)
        bands = rows["bands_used"].to_pylist()
        present = np.array([[band in (used or "") for band in MODEL_BANDS] for used in bands], np.float32).reshape(-1, len(MODEL_BANDS))
        for first in range(0, rows.num_rows, batch):
            part = slice(first, min(first + batch, rows.num_rows))
            count = part.stop - part.start
            filled = np.concatenate([embedding[part], np.repeat(embedding[part][-1:], batch - count, axis=0)])
            with torch.inference_mode():
                answers = self.model.from_embedding(torch.from_numpy(filled).to(self.device), only)
            # a stamp of one pixel says which bands there are, which is all that is asked of one without pixels
            valid = present[part, :, None, None]
            context = StampContext(rows.slice(first, count), 1, 0, SURVEY_PIXSCALE, np.zeros_like(valid), valid)
            parts.append(_compact(self._table(_raw_of(answers, count, context), schema)))
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def _schema(self, only: Sequence[str] | None) -> pa.Schema:
        columns = self.columns() if only is None else [column for name in only for column in self.model.head(name).columns()]
        return pa.schema([column.field() for column in columns])

    def _table(self, raw: RawBatch, schema: pa.Schema) -> pa.Table:
        arrays: dict[str, pa.Array] = {}
        for name, outputs in raw.heads.items():
            arrays |= self.model.head(name).decode(outputs, raw.context)
        share = _valid_share(raw.context)
        used = share >= LEAST_VALID
        arrays["bands_used"] = pa.array(["".join(band for band, here in zip(MODEL_BANDS, row, strict=True) if here) for row in used])
        arrays["degraded"] = pa.array(~used.all(axis=1))
        flat = pa.array(raw.embedding.astype(np.float16).ravel())
        arrays["embedding"] = pa.FixedSizeListArray.from_arrays(flat, raw.embedding.shape[1])
        return pa.table([arrays[name] for name in schema.names], schema=schema)

    def raw(self, stamps: StampSet, batch: int = 32) -> RawBatch:
        """Raw outputs of at most ``batch`` stamps, from one pass of exactly ``batch`` rows."""
        return self.raw_inputs(stamp_inputs(stamps), stamps, batch)

    def raw_inputs(self, inputs: Inputs, stamps: StampSet, batch: int, only: Sequence[str] | None = None) -> RawBatch:
        """The same for inputs of these stamps that were changed on purpose (degraded, turned); of some heads only."""
        answers = self.run(_fill(inputs, batch), only)
        context = StampContext(stamps.sources, stamps.size, MARGIN, stamps.pixscale, inputs.pixels.numpy(), inputs.valid.numpy())
        return _raw_of(answers, len(inputs), context)

    def run(self, inputs: Inputs, only: Sequence[str] | None = None) -> Answers:
        """One pass without gradients."""
        with torch.inference_mode():
            answers: Answers = self.model(inputs.to(self.device), only)
        return answers

    def restore(self, stamps: StampSet, indices: Sequence[int], batch: int = 32) -> FloatArray:
        """Restored images, for the eye.

        Parameters
        ----------
        stamps : StampSet
        indices : sequence of int
            K rows of ``stamps``.

        Returns
        -------
        ndarray
            Float32, shape (K, 3, S, S): g, r, z in nanomaggies per pixel, dereddened, sharpened to 0.85 of the stamp's PSF.
        """
        return self.restored(stamps, indices, batch).image

    def restored(self, stamps: StampSet, indices: Sequence[int], batch: int = 32) -> Restored:
        """Restored images with their uncertainty; arguments as `restore`."""
        head = self.model.head("restoration")
        if not isinstance(head, Restoration):
            raise TypeError(f"expected the restoration head, got {type(head).__name__}")
        softening = np.array([SOFTENING[band] for band in MODEL_BANDS], dtype=np.float32)[:, None, None]
        inside = (..., slice(MARGIN, MARGIN + stamps.size), slice(MARGIN, MARGIN + stamps.size))
        parts = []
        for first in range(0, len(indices), batch):
            raw = self.raw(stamps.take(np.asarray(indices[first : first + batch], dtype=np.int64)), batch)
            outputs = raw.heads["restoration"]
            middle = np.clip(outputs["restored"][inside], -12, 12)
            half = head.half_widths(outputs, raw.context.valid)[0][inside]
            # half the width of the interval in flux: (sinh(y + h) - sinh(y - h)) / 2
            sigma = np.cosh(middle) * np.sinh(np.minimum(half, 5.0)) * softening
            parts.append(Restored(np.sinh(middle) * softening, sigma, raw.context.valid[inside] == 0))
        if not parts:
            empty = np.zeros((0, len(MODEL_BANDS), stamps.size, stamps.size), dtype=np.float32)
            return Restored(empty, empty, empty > 0)
        image, sigma, filled = (np.concatenate([getattr(part, name) for part in parts]) for name in ("image", "sigma", "filled"))
        return Restored(image.astype(np.float32), sigma.astype(np.float32), filled)


def _raw_of(answers: Answers, count: int, context: StampContext) -> RawBatch:
    heads = {name: {key: _array(value[:count]) for key, value in outputs.items()} for name, outputs in answers.heads.items()}
    return RawBatch(_array(answers.embedding[:count]), heads, context)


def _embeddings(rows: pa.Table, length: int) -> FloatArray:
    """The vectors of a catalog's rows, shape (N, E)."""
    column = rows["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if column.null_count or len(flat) != length * len(column):
        raise BadData(f"an embedding of {length} numbers in each of {len(column)} rows", f"{column.null_count} null, {len(flat)} numbers")
    return np.asarray(flat, np.float32).reshape(len(column), length)


def _compact(table: pa.Table) -> pa.Table:
    """A copy that owns its bytes: columns made from slices of a batch's arrays would keep all of them alive, 1.5 MB a stamp."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def _steady_sums() -> None:
    """Ask CUDA for full precision and for the same algorithm every time, so that two runs give the same rows."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _array(values: torch.Tensor) -> FloatArray:
    return np.asarray(values.float().cpu().numpy(), dtype=np.float32)


def _fill(inputs: Inputs, batch: int) -> Inputs:
    """Repeat the last row until the batch is full."""
    missing = batch - len(inputs)
    if missing <= 0:
        return inputs
    parts = (inputs.pixels, inputs.valid, inputs.conditions, inputs.sharpening)
    return Inputs(*(torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) for part in parts))


def _valid_share(context: StampContext) -> npt.NDArray[np.float64]:
    inside = slice(context.margin, context.margin + context.size)
    return np.asarray(context.valid[:, :, inside, inside].mean(axis=(2, 3)), dtype=np.float64)
