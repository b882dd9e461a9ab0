"""Every setting of a run, in frozen dataclasses that check themselves.

A run's settings are written beside its products; what belongs to a stage's fingerprint is its own dataclass.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from galpipe.errors import ConfigurationError

SURVEY_PIXSCALE = 0.262
"""Arcsec per pixel of the survey's coadds."""

SOFTENING = {"g": 0.004, "r": 0.007, "i": 0.013, "z": 0.02}
"""s_b of y = asinh(flux / s_b), nanomaggies per pixel: near the sky noise of a typical brick (science.md section 3)."""


def _positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ConfigurationError(f"{owner}.{name} > 0", repr(value))


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

    def __post_init__(self) -> None:
        _positive("fetch", connections=self.connections, timeout=self.timeout)


@dataclass(frozen=True)
class CutSettings:
    """What a stamp is; names the folder ``stamps/<cut>``."""

    bands: tuple[str, ...] = ("g", "r", "z")
    """Bands a stamp may have, in the order of the stamp's first axis; an absent band is all masked."""
    size: int = 152
    """Pixels on a side; the source's nearest pixel is ``[size // 2, size // 2]``."""
    pixscale: float = SURVEY_PIXSCALE
    """Arcsec per pixel."""

    def __post_init__(self) -> None:
        _positive("cut", size=self.size, pixscale=self.pixscale)
        unknown = [band for band in self.bands if band not in SOFTENING]
        if unknown or not self.bands:
            raise ConfigurationError(f"cut.bands among {sorted(SOFTENING)}", repr(self.bands))

    @property
    def name(self) -> str:
        """For example ``grz152``; another pixel scale shows in the name."""
        scale = "" if self.pixscale == SURVEY_PIXSCALE else f"-{self.pixscale:g}"
        return "".join(self.bands) + str(self.size) + scale


@dataclass(frozen=True)
class SelectionSettings:
    """Which sources are predicted (science.md section 1)."""

    name: str = "galaxies-z20"
    """``galaxies-z20``, ``galaxies-z21`` or ``ids:FILE``."""
    min_valid_frac: float = 0.3
    """Least share of valid pixels in at least one band the model knows; below it: ``no_coverage``."""


@dataclass(frozen=True)
class InferSettings:
    """How the model is run; only what changes a result belongs to the fingerprint."""

    model: str = "shipped"
    """``shipped``, ``NAME/VERSION`` under the root's ``models/``, or a folder."""
    batch: int = 32
    """Stamps per forward pass; the last batch is padded, batches never span bricks."""
    threads: int = 1
    """Torch threads per worker; fixed, so that sums do not depend on the machine's load."""


@dataclass(frozen=True)
class ClusterSettings:
    """Where Dask runs."""

    address: str = ""
    """An existing scheduler; empty starts a local cluster."""
    workers: int = 0
    """Worker processes of a local cluster; 0 = one per GPU, or one per two cores (at least one)."""
    memory: str = "3GB"
    """Memory limit per worker."""


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
