"""What a mock release is to contain, and what the imitated releases look like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from galpipe.errors import ConfigurationError
from galpipe.survey.bricks import ROWS, Brick, brick, brick_at, brick_by_name, columns_of_row

SKY_VERSION = 1
"""Raised by hand when the same spec draws another sky: weights say which one they were trained on."""

ALL_BANDS = ("g", "r", "i", "z")
"""Order of every per-band vector inside the mock; a release shows a subset of it."""

NORTH_DEC = 32.375
"""Declination (deg) from which the northern cameras are imitated, where a release has a north."""

REGIONS = ("south", "north")

EDGE_REACH = 0.02
"""Arcsec from a brick's edge to the galaxies that ``edge_galaxies`` moves there: a few times the error of a bright one's position."""

SKY_SIGMA = {"g": 0.003, "r": 0.006, "i": 0.010, "z": 0.015}
"""Median sky noise of a brick, nanomaggies per pixel, 1 sigma: 5-sigma point-source depths near 24.6, 24.1, 23.6, 23.1."""

SEEING = {
    "south": {"g": 1.3, "r": 1.2, "i": 1.15, "z": 1.1},
    "north": {"g": 1.6, "r": 1.5, "i": 1.2, "z": 1.0},
}
"""Median FWHM (arcsec) per region (science.md section 2)."""

SKY_LEVEL = {"g": 0.109, "r": 0.30, "i": 0.80, "z": 2.07}
"""Sky brightness, nanomaggies per pixel (22.0, 20.9, 19.8, 18.8 mag per square arcsec): sets the source's own noise."""


@dataclass(frozen=True)
class ReleaseStyle:
    """How one release's files differ from the next one's (reference sections 2 to 4)."""

    number: int
    """The ``release`` column in the south; the north's is one more."""
    bands_south: tuple[str, ...]
    bands_north: tuple[str, ...]
    mask_type: str
    """NumPy type of the maskbits image and column."""
    lightcurve: int
    """Length of the WISE light-curve arrays."""
    extension_names: bool
    """Whether coadd images carry EXTNAME."""
    gaia: str
    """ref_cat code of Gaia."""
    large: str
    """ref_cat code of the large-galaxy atlas."""
    has_north: bool = True
    galex: bool = False
    """Whether tables have the ultraviolet columns."""
    two_profiles: bool = False
    """DR8: exponential and de Vaucouleurs shapes apart, COMP for SER, brightblob for fitbits, and bit names in cards MBITNn."""


STYLES = {
    "dr8": ReleaseStyle(8000, ("g", "r", "z"), ("g", "r", "z"), "int16", 11, False, "G2", "L2", two_profiles=True),
    "dr9": ReleaseStyle(9010, ("g", "r", "z"), ("g", "r", "z"), "int16", 15, False, "G2", "L3"),
    "dr10": ReleaseStyle(10000, ("g", "r", "i", "z"), (), "int32", 17, False, "GE", "L3", has_north=False),
    "dr11": ReleaseStyle(11000, ("g", "r", "i", "z"), ("g", "r", "z"), "int32", 25, True, "G3", "L4", galex=True),
}


SKIES = ("plain", "survey")

BY_LATITUDE = -1
"""Value of ``stars``: by galactic latitude."""

BRIGHT_LIMIT = 20.0
"""z magnitude (observed) that parts the galaxies of the default selection from the faint ones."""

FAINT_SLOPE = 0.30
"""Counts beyond it rise as 10^(slope z)."""


def faint_count(limit: float) -> int:
    """Galaxies per brick between z = 20 and a limit, when there are 1,500 to z = 22.5."""
    per_unit = 1500 / (10 ** (FAINT_SLOPE * (22.5 - BRIGHT_LIMIT)) - 1)
    return max(0, round(per_unit * (10 ** (FAINT_SLOPE * (limit - BRIGHT_LIMIT)) - 1)))


@dataclass(frozen=True)
class MockSpec:
    """One mock release.

    Raises
    ------
    ConfigurationError
        If the release cannot be imitated or a number makes no sense.
    """

    bricks: int = 2
    """Bricks, in a compact block around ``center``."""
    seed: int = 1
    like: str = "dr9"
    """The release to imitate: ``dr8`` to ``dr11``."""
    galaxies: int = 250
    """Galaxies with z < 20 per brick."""
    faint: int = 1500
    """Galaxies with z from 20 to ``faint_limit`` per brick."""
    faint_limit: float = 22.5
    """Faintest z magnitude of a galaxy."""
    stars: int = 150
    """Stars per brick; in the survey-like sky `BY_LATITUDE` takes as many as the galactic latitude asks for."""
    center: tuple[float, float] = (150.1, 2.2)
    """RA and Dec (deg) of a point in the first brick."""
    bands: tuple[str, ...] = ()
    """Bands to write; empty takes the release's own."""
    missing_bands: tuple[tuple[int, str], ...] = ()
    """(number of the brick in the block, band) without coverage: the files are absent."""
    empty_bricks: tuple[int, ...] = ()
    """Numbers of bricks that have stars only."""
    store_truth_images: bool = False
    """Write the noiseless, PSF-convolved image of each band beside the truth."""
    workers: int = 0
    """Processes; 0 takes one per CPU, never more than bricks."""
    regions: tuple[str, ...] = ()
    """Regions to write; empty takes the one that the center lies in, for all bricks. Named ones have their side of `NORTH_DEC`."""
    overlap_rows: int = 1
    """Rows of bricks beyond `NORTH_DEC` that a named region has too."""
    names: tuple[str, ...] = ()
    """Bricks by name instead of a block; ``bricks`` must be their number."""
    edge_galaxies: int = 0
    """Bright galaxies of each brick that are moved to within `EDGE_REACH` of its edges."""
    sky: str = "plain"
    """``plain``: clean pixels and simple populations. ``survey``: as dirty as the survey (`galpipe.mock.survey`)."""

    def __post_init__(self) -> None:
        if self.like not in STYLES:
            raise ConfigurationError(f"like among {sorted(STYLES)}", repr(self.like))
        if self.sky not in SKIES:
            raise ConfigurationError(f"a mock sky among {SKIES}", repr(self.sky))
        by_latitude = self.sky == "survey" and self.stars == BY_LATITUDE
        if self.bricks < 1 or min(self.galaxies, self.faint, 0 if by_latitude else self.stars) < 0:
            raise ConfigurationError("at least one brick and no negative number of sources", repr(self))
        if self.faint and not self.faint_limit > BRIGHT_LIMIT:
            raise ConfigurationError(f"a faint limit beyond z = {BRIGHT_LIMIT}", repr(self.faint_limit))
        wrong = [band for band in self.bands if band not in ALL_BANDS]
        if wrong:
            raise ConfigurationError(f"mock bands among {ALL_BANDS}", repr(self.bands))
        if self.center[1] >= NORTH_DEC and not self.style.has_north:
            raise ConfigurationError(f"a center south of {NORTH_DEC} deg for {self.like}, which has no north", repr(self.center))
        self._check_regions()
        if self.names and len(set(self.names)) != self.bricks:
            raise ConfigurationError(f"{self.bricks} different brick names", repr(self.names))
        blank = [k for k in range(self.bricks) if not set(self.band_list) - set(self.missing_of(k))]
        if blank:
            raise ConfigurationError("at least one band in every brick", f"none in bricks {blank}")

    def _check_regions(self) -> None:
        known = REGIONS if self.style.has_north else REGIONS[:1]
        if len(set(self.regions)) != len(self.regions) or not set(self.regions) <= set(known) or self.overlap_rows < 0:
            raise ConfigurationError(f"regions among {known} for {self.like} and no negative overlap", repr(self))

    @property
    def style(self) -> ReleaseStyle:
        """Format of the imitated release."""
        return STYLES[self.like]

    @property
    def region(self) -> str:
        """``north`` or ``south``: the one asked for, else by declination."""
        if len(self.regions) == 1:
            return self.regions[0]
        return "north" if self.center[1] >= NORTH_DEC else "south"

    def parts(self) -> list[MockSpec]:
        """One spec for each region to write, the same sky in all.

        Raises
        ------
        ConfigurationError
            If a region has none of the bricks.
        """
        found = [replace(self, regions=(region,)) for region in self.regions] if self.regions else [self]
        for part in found:
            if not part.numbers():
                raise ConfigurationError(f"bricks that region {part.region} has", repr([area.name for area in self.brick_list()]))
        return found

    def entropy(self, brickid: int, purpose: int) -> list[int]:
        """Seed of what a brick's pixels and table are drawn with; each camera has its own weather and noise."""
        own = [1 + REGIONS.index(self.region)] if self.regions else []
        return [self.seed, brickid, purpose, *own]

    @property
    def release(self) -> int:
        """The number in the ``release`` column."""
        return self.style.number + (1 if self.region == "north" else 0)

    @property
    def band_list(self) -> tuple[str, ...]:
        """Bands that the tree shows."""
        own = self.style.bands_north if self.region == "north" else self.style.bands_south
        return tuple(band for band in own if not self.bands or band in self.bands)

    def brick_list(self) -> list[Brick]:
        """The bricks of the block: columns first, then the next row north, or south of the pole where there is none.

        Raises
        ------
        ConfigurationError
            If a name is not a brick's.
        """
        if self.names:
            return [brick_by_name(name) for name in self.names]
        first = brick_at(*self.center)
        wide = max(1, round(self.bricks**0.5)) if self.bricks > 3 else self.bricks
        found: list[Brick] = []
        rows = [*range(first.row, ROWS), *range(first.row - 1, -1, -1)]
        for row in rows:
            # a row near a pole may have fewer bricks than the block is wide
            count = columns_of_row(row)
            start = brick_at(first.ra, brick(row, 0).dec).column
            found += [brick(row, (start + k) % count) for k in range(min(wide, count))]
            if len(found) >= self.bricks:
                break
        return found[: self.bricks]

    def numbers(self) -> list[int]:
        """Which of `brick_list` the spec's region has: all, or where regions are named those on its side and in the overlap."""
        if not self.regions:
            return list(range(self.bricks))
        reach = 0.25 * self.overlap_rows
        sides = {"north": lambda dec: dec >= NORTH_DEC - reach, "south": lambda dec: dec < NORTH_DEC + reach}
        return [k for k, area in enumerate(self.brick_list()) if sides[self.region](area.dec)]

    def missing_of(self, number: int) -> tuple[str, ...]:
        """Bands that the block's brick ``number`` lacks."""
        return tuple(band for index, band in self.missing_bands if index == number)


@dataclass(frozen=True)
class MockSummary:
    """What was written."""

    release: Path
    truth: Path
    like: str
    region: str
    bricks: tuple[str, ...]
    galaxies: int
    """True galaxies in the bricks' own areas, faint ones included."""
    rows: int
    """Tractor rows."""
    seconds: float


def truth_folder(release: Path) -> Path:
    """Where a mock release's truth lies: beside the tree, never inside."""
    return release.parent / f"{release.name}-truth"
