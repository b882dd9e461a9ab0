"""Every setting of a run, in frozen dataclasses that check themselves.

A run's settings are written beside its products; what belongs to a stage's fingerprint is its own dataclass.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from galpipe.errors import ConfigurationError
from galpipe.idlist import ids_hash, read_ids

SURVEY_PIXSCALE = 0.262
"""Arcsec per pixel of the survey's coadds."""

STAMP_SIZE = 152
"""Pixels on a side of a stamp (science.md section 3)."""

SOFTENING = {"g": 0.004, "r": 0.007, "i": 0.013, "z": 0.02}
"""s_b of y = asinh(flux / s_b), nanomaggies per pixel: near the sky noise of a typical brick (science.md section 3)."""


IDS = "ids:"
"""How the name of a selection by list begins; the list's path follows."""

LIMITED = re.compile(r"galaxies-z(\d+(?:\.\d+)?)")
"""Name of a selection by magnitude in z."""

_MEMORY = re.compile(r"auto|\d*[1-9]\d*(\.\d+)?\s*[kKMGT]i?B")

_KINDS: dict[object, str] = {int: "a whole number", float: "a number", str: "text", tuple[str, ...]: "a list of texts"}


def _fits(kind: object, value: object) -> bool:
    if kind == tuple[str, ...]:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if kind is float:
        return isinstance(value, float) and math.isfinite(value)
    # True is an int to Python, not to people
    return isinstance(kind, type) and isinstance(value, kind) and not isinstance(value, bool)


def _check_types(owner: str, settings: Any) -> None:
    """Every value must be of its annotated type; a whole number given for a number becomes one."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
            # 60 and 60.0 must not hash differently
            object.__setattr__(settings, name, value)
        if not _fits(kind, value):
            raise ConfigurationError(f"{owner}.{name} to be {_KINDS[kind]}", repr(value))


def _check_range(key: str, value: float, low: float, high: float = math.inf) -> None:
    if not low <= value <= high:
        wanted = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ConfigurationError(f"{key} {wanted}", repr(value))


def _check_bands(key: str, bands: tuple[str, ...], known: tuple[str, ...], *, may_be_empty: bool) -> None:
    if not (bands or may_be_empty) or len(set(bands)) != len(bands) or not set(bands) <= set(known):
        raise ConfigurationError(f"{key} among {list(known)}, each once", repr(list(bands)))


PRODUCTS = ("image", "invvar", "nexp", "psfsize", "depth", "galdepth", "chi2", "model", "blobmodel")
"""Per-band coadds that a release may have."""

_BAND = re.compile(r"[A-Za-z][A-Za-z0-9]*")
"""A band as it stands in file names; which ones there are is for the release to say."""


@dataclass(frozen=True)
class FetchSettings:
    """How the release is read."""

    products: tuple[str, ...] = ("image", "invvar", "nexp")
    """Per-band coadds to fetch; maskbits and the Tractor table come always."""
    bands: tuple[str, ...] = ()
    """Bands to fetch; empty means every band that the region has."""
    connections: int = 4
    """Requests open at a time, over the whole run."""
    retries: int = 5
    """Tries after the first, on 429, 5xx, time-outs and cut connections."""
    timeout: float = 60.0
    """Seconds without a byte until a request counts as stalled."""
    back_off: float = 1.0
    """Seconds before the first retry; doubles each time."""
    credentials: str = "auto"
    """For S3: ``auto`` signs with what boto3 finds and reads anonymously where it finds nothing; ``none`` never signs."""

    def __post_init__(self) -> None:
        _check_types("fetch", self)
        _check_range("fetch.connections", self.connections, 1, 64)
        _check_range("fetch.retries", self.retries, 0, 100)
        _check_range("fetch.timeout", self.timeout, 0.1, 3600)
        _check_range("fetch.back_off", self.back_off, 0, 3600)
        _check_bands("fetch.products", self.products, PRODUCTS, may_be_empty=False)
        if len(set(self.bands)) != len(self.bands) or not all(_BAND.fullmatch(band) for band in self.bands):
            raise ConfigurationError("fetch.bands with names such as 'g' or 'Y', each once", repr(list(self.bands)))
        if self.credentials not in ("auto", "none"):
            raise ConfigurationError("fetch.credentials 'auto' or 'none'", repr(self.credentials))


@dataclass(frozen=True)
class CutSettings:
    """What a stamp is; names the folder ``stamps/<cut>``."""

    bands: tuple[str, ...] = ("g", "r", "z")
    """Bands a stamp may have, in the order of the stamp's first axis; an absent band is all masked."""
    size: int = STAMP_SIZE
    """Pixels on a side; the source's nearest pixel is ``[size // 2, size // 2]``."""
    pixscale: float = SURVEY_PIXSCALE
    """Arcsec per pixel."""

    def __post_init__(self) -> None:
        _check_types("cut", self)
        _check_range("cut.size", self.size, 8, 1024)
        _check_range("cut.pixscale", self.pixscale, 0.01, 10)
        _check_bands("cut.bands", self.bands, tuple(SOFTENING), may_be_empty=False)

    @property
    def name(self) -> str:
        """For example ``grz152``; another pixel scale shows in the name."""
        scale = "" if self.pixscale == SURVEY_PIXSCALE else f"-{self.pixscale:g}"
        return "".join(self.bands) + str(self.size) + scale


@dataclass(frozen=True)
class SelectionSettings:
    """Which sources are predicted (science.md section 1)."""

    name: str = "galaxies-z20"
    """``galaxies-z20``, ``galaxies-z21`` (any limit in z) or ``ids:FILE``; the list must be there and read."""
    min_valid_frac: float = 0.3
    """Least share of valid pixels in at least one band the model knows; below it: ``no_coverage``."""

    def __post_init__(self) -> None:
        _check_types("selection", self)
        _check_range("selection.min_valid_frac", self.min_valid_frac, 0, 1)
        if self.ids_file is not None:
            read_ids(self.ids_file)
        elif not LIMITED.fullmatch(self.name):
            raise ConfigurationError("selection.name galaxies-z20, galaxies-z21 or ids:FILE", repr(self.name))

    @property
    def ids_file(self) -> Path | None:
        """The list of a selection by ids; None for any other."""
        return Path(self.name.removeprefix(IDS)) if self.name.startswith(IDS) else None

    def identity(self) -> dict[str, Any]:
        """What decides which sources are selected, JSON-ready: for a list its ids, wherever the file lies.

        Raises
        ------
        ConfigurationError
            If the list does not read any more.
        """
        values = asdict(self)
        if self.ids_file is not None:
            values |= {"name": "ids", "ids_sha256": ids_hash(self.ids_file)}
        return values


@dataclass(frozen=True)
class InferSettings:
    """How the model is run; only what changes a result belongs to the fingerprint."""

    model: str = "shipped"
    """``shipped``, ``NAME/VERSION`` under the root's ``models/``, or a folder."""
    batch: int = 32
    """Stamps per forward pass; the last batch is padded, batches never span bricks."""
    threads: int = 1
    """Torch threads per worker; fixed, so that sums do not depend on the machine's load."""

    def __post_init__(self) -> None:
        _check_types("infer", self)
        _check_range("infer.batch", self.batch, 1, 4096)
        _check_range("infer.threads", self.threads, 1, 1024)
        if not self.model:
            raise ConfigurationError("infer.model to name a model", repr(self.model))


@dataclass(frozen=True)
class ClusterSettings:
    """Where Dask runs."""

    address: str = ""
    """An existing scheduler; empty starts a local cluster."""
    workers: int = 0
    """Worker processes of a local cluster; 0 = one per GPU, or one per core (at most eight)."""
    memory: str = "3GB"
    """Memory limit per worker, with its unit."""

    def __post_init__(self) -> None:
        _check_types("cluster", self)
        _check_range("cluster.workers", self.workers, 0, 4096)
        if not _MEMORY.fullmatch(self.memory):
            raise ConfigurationError("cluster.memory such as '3GB'", repr(self.memory))


@dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    fetch: FetchSettings = field(default_factory=FetchSettings)
    cut: CutSettings = field(default_factory=CutSettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    infer: InferSettings = field(default_factory=InferSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def settings_from(values: dict[str, Any]) -> Settings:
    """Build settings from nested plain values (a TOML file, JSON).

    Raises
    ------
    ConfigurationError
        If a table or key is unknown, or a value is refused.
    """
    settings = Settings()
    known = {item.name for item in fields(Settings)}
    for table, content in values.items():
        if table not in known or not isinstance(content, dict):
            raise ConfigurationError(f"tables {sorted(known)} in the configuration", repr(table))
        part = getattr(settings, table)
        keys = {item.name for item in fields(part)}
        if set(content) - keys:
            raise ConfigurationError(f"keys {sorted(keys)} in [{table}]", repr(sorted(set(content) - keys)))
        tidy = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
        settings = replace(settings, **{table: replace(part, **tidy)})
    return settings


def load_settings(path: Path | None) -> Settings:
    """Read a TOML configuration; None gives the defaults."""
    if path is None:
        return Settings()
    try:
        return settings_from(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError("a readable TOML configuration", str(error), file=str(path)) from error
