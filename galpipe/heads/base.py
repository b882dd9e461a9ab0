"""What a downstream task is: one file with one subclass of `Head`.

Adding a task: write a module with a class that derives from `Head`, on the Python path or in this package, name it in
``ModelSettings.heads``, train (docs/new-task.md).
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from galpipe.columns import Column
from galpipe.errors import ConfigurationError
from galpipe.lvm.encoder import Features, ModelSettings
from galpipe.lvm.inputs import Inputs
from galpipe.stamps.stampset import StampSet

FloatArray = npt.NDArray[np.float32]
Outputs = dict[str, Tensor]
RawOutputs = dict[str, FloatArray]


@dataclass(frozen=True)
class StampContext:
    """What decoding may know of the stamps besides the raw outputs.

    Parameters
    ----------
    sources : pyarrow.Table
        N rows; ra and dec (deg), stamp_dx and stamp_dy (px) where known.
    size : int
        Pixels on a side of the stamp.
    margin : int
        Width of the frame that the model's input has around the stamp.
    pixscale : float
        Arcsec per pixel.
    pixels : ndarray
        Float32, shape (N, 3, P, P), the model's input in asinh units.
    valid : ndarray
        Float32, shape (N, 3, P, P), 1 where measured.
    """

    sources: pa.Table
    size: int
    margin: int
    pixscale: float
    pixels: FloatArray
    valid: FloatArray


@dataclass(frozen=True)
class Truth:
    """Known answers of stamps, as training and scoring read them; arrays and positions in the model's padded frame of P pixels.

    Parameters
    ----------
    table : pyarrow.Table
        N rows of the mock truth (science.md section 4); null where a stamp's source matches no true one.
    objects : tuple of ndarray
        N arrays float32 of shape (K_i, 8): x, y, x0, y0, x1, y1 (px, box ends inclusive), is_star, ignore.
    segments : ndarray
        uint8, shape (N, P, P): 1 + row in ``objects`` of the object that owns the pixel, 0 = sky, 255 = ignored.
    clean : ndarray
        Float32, shape (N, 3, P, P), noiseless image in asinh units.
    known : ndarray
        Bool, shape (N, P, P): inside the brick's frame, so that the truth says something.
    """

    table: pa.Table
    objects: tuple[FloatArray, ...]
    segments: npt.NDArray[np.uint8]
    clean: FloatArray
    known: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Frozen:
    """The trained encoder and what it was trained on, for heads that learn after everything else.

    Parameters
    ----------
    encode : callable
        One encoder pass without gradients; at most some tens of stamps at a time.
    stamps : StampSet
        The training stamps, with the columns of the mock truth.
    seed : int
    """

    encode: Callable[[Inputs], Features]
    stamps: StampSet
    seed: int


@dataclass(frozen=True)
class Score:
    """A head's figure beside that of a constant answer.

    Parameters
    ----------
    name, unit : str
    value, constant : float
        The model's figure and the constant answer's.
    higher_is_better : bool
    count : int
        Galaxies (or objects) it rests on.
    constant_is : str
        What the constant answer is.
    """

    name: str
    unit: str
    value: float
    constant: float
    higher_is_better: bool
    count: int
    constant_is: str

    @property
    def beats_constant(self) -> bool:
        """Whether the model is better than the constant answer."""
        return self.value > self.constant if self.higher_is_better else self.value < self.constant


class Head(nn.Module, ABC):
    """One downstream task on the shared encoder."""

    name: str
    """Of the task: key of its outputs and part of its weights' names."""
    version: ClassVar[int] = 1
    needs_pixels: ClassVar[bool] = True
    """False when the stored embedding is all it needs, so that it can be re-done without stamps."""
    calibrates_degraded: ClassVar[bool] = False
    """True when `calibration` wants the answers to inputs degraded as `measure` gets them, whose truth is the restored image."""

    @classmethod
    @abstractmethod
    def build(cls, settings: ModelSettings) -> Head:
        """Make the head for a model of these sizes."""

    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """The catalog columns that `decode` fills, in order."""

    @abstractmethod
    def forward(self, features: Features) -> Outputs:
        """Raw outputs, first axis N."""

    @abstractmethod
    def targets(self, truth: Truth) -> Outputs:
        """The truth of a batch as this head's loss wants it."""

    @abstractmethod
    def loss(self, outputs: Outputs, targets: Outputs) -> Tensor:
        """Scalar loss of a batch."""

    @abstractmethod
    def decode(self, outputs: RawOutputs, context: StampContext) -> dict[str, pa.Array]:
        """Catalog values of a batch, one array per column of `columns`."""

    @abstractmethod
    def score(self, predicted: pa.Table, truth: Truth, training: pa.Table) -> list[Score]:
        """Figures on stamps of known truth, each beside the constant answer learned from the training truth."""

    def measure(self, outputs: RawOutputs, truth: Truth, context: StampContext) -> dict[str, npt.NDArray[np.float64]]:
        """Figures per stamp that need the raw outputs, of degraded inputs; they join the columns that `score` reads."""
        return {}

    def prepare(self, table: pa.Table) -> None:
        """Learn constants (means, spreads) from the training truth before the first step."""

    def rebase(self, matrix: Tensor) -> None:
        """The embedding ``e`` has become ``e @ matrix``: change the weights so that the answers stay as they were.

        Parameters
        ----------
        matrix : Tensor
            Float64 on the CPU, shape (E, E), invertible.
        """

    def fit_frozen(self, frozen: Frozen) -> dict[str, float]:
        """Learn from the finished encoder, after the last step and before `calibrate`; nothing but this head may change.

        Returns
        -------
        dict
            What was measured, for the model card.
        """
        return {}

    def calibration(self, outputs: RawOutputs, truth: Truth, context: StampContext) -> dict[str, npt.NDArray[np.float64]]:
        """What `calibrate` needs of one batch: arrays of any lengths, joined over the batches by name.

        The batches are of stamps that trained nothing; they come with every band, and again with one band or two taken away, as
        ``context.valid`` shows (science.md section 2: calibration is per set of bands).
        """
        return {}

    def calibrate(self, gathered: dict[str, npt.NDArray[np.float64]]) -> dict[str, float]:
        """Set the constants (buffers of the head) that make the stated uncertainties true.

        Returns
        -------
        dict
            What was measured before and after, for the model card.
        """
        return {}


def head_class(name: str) -> type[Head]:
    """The head that a module defines.

    Parameters
    ----------
    name : str
        A module of this package (``morphology``), or a module on the Python path, with a dot (``mylab.rings``) or with the class that is
        meant (``rings:Rings``).

    Raises
    ------
    ConfigurationError
        If there is no such module, or it defines no head.
    """
    path, _, wanted = name.partition(":")
    own = "." not in path and not wanted
    full = f"galpipe.heads.{path}" if own else path
    try:
        module = importlib.import_module(full)
    except ModuleNotFoundError as error:
        where = "in galpipe/heads" if own else f"on the Python path ({error})"
        raise ConfigurationError(f"a head with a module {where}", repr(name)) from error
    for key, item in vars(module).items():
        if isinstance(item, type) and issubclass(item, Head) and item.__module__ == module.__name__ and wanted in ("", key):
            return item
    raise ConfigurationError(f"a subclass of Head in {f'galpipe/heads/{path}.py' if own else name}", "none")


def rebase_linear(layer: nn.Linear, matrix: Tensor) -> None:
    """Let a linear layer whose first inputs are the embedding answer as before (`Head.rebase`)."""
    size = len(matrix)
    old = layer.weight.detach()[:, :size].double().cpu()
    with torch.no_grad():
        layer.weight[:, :size] = torch.linalg.solve(matrix, old.T).T.to(layer.weight)
