"""A release of the survey: its regions, bricks, bands and files, found by looking at the tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

from galpipe.config import FetchSettings
from galpipe.errors import ConfigurationError
from galpipe.survey.checksums import LIST_ENDING, checksum_folders, parse_checksums, published_name
from galpipe.survey.files import NEIGHBOUR, sort_bands
from galpipe.survey.neighbours import stamp_neighbours_of
from galpipe.survey.sources import FolderSource, HttpSource, Source
from galpipe.survey.tables import brick_table, read_brick_table
from galpipe.survey.union import KNOWN_UNIONS, UnionSource, union_parts
from galpipe.unit import NO_REGION, Unit

KNOWN_ROOT = "https://portal.nersc.gov/cfs/cosmo/data/legacysurvey/{name}/"
KNOWN_NAMES = ("dr8", "dr9", "dr10", "dr11")
LIKELY_REGIONS = ("north", "south")
"""Region names to try on a server that shows no listings; with a listing any folder with coadds is a region."""

_SUMMARY = re.compile(r"survey-bricks-(?P<label>[^-/]+)(-(?P<region>[^-/]+))?\.fits(\.gz)?")
_BRICK_FOLDER = re.compile(r"(\d{4}[pm]\d{3})/")
_KEPT_LISTS = 64
_FALLBACK_BANDS = ("g", "r", "i", "z")


@dataclass(frozen=True)
class RemoteFile:
    """One file to ask the release for.

    Parameters
    ----------
    path : str
        In the release tree.
    name : str
        In the brick's folder.
    product, band : str
        ``image`` and ``g``; the band is empty for a file of all bands.
    """

    path: str
    name: str
    product: str
    band: str = ""


@dataclass(frozen=True)
class Release:
    """A release under a name.

    Parameters
    ----------
    name : str
        What the release is called in paths and ledgers here.
    source : Source
        Where its tree lies.
    owners : mapping of str to str
        For a union: the release that each region's bricks belong to. They are the same bricks as those of that release alone, so
        that neither files are fetched nor galaxies listed twice.

    Notes
    -----
    What was discovered is kept in memory for as long as the object lives.
    """

    name: str
    source: Source
    owners: Mapping[str, str] = field(default_factory=dict)
    _found: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def regions(self) -> tuple[str, ...]:
        """Names of the regions; ``("all",)`` for a tree without a region level.

        Raises
        ------
        ConfigurationError
            If the tree has neither coadds nor a brick table.
        RemoteFailure
            If the server does not answer.
        """
        if "regions" not in self._found:
            self._found["regions"] = self._discover_regions()
        found: tuple[str, ...] = self._found["regions"]
        return found

    def _discover_regions(self) -> tuple[str, ...]:
        names = self.source.list_names("")
        if names is not None and names:
            if "coadd/" in names:
                return (NO_REGION,)
            found = [name.rstrip("/") for name in names if name.endswith("/") and self._is_region(name.rstrip("/"))]
        else:
            found = [name for name in LIKELY_REGIONS if self._is_region(name)]
            if not found and self.source.size(self._likely_summary(NO_REGION)) is not None:
                found = [NO_REGION]
        lost = sorted(set(self.owners) - set(found))
        if not found or lost:
            wanted = f"{lost[0]}/coadd/ in {self.owners[lost[0]]}" if lost else "a release tree, with coadd/ or <region>/coadd/ in it"
            raise ConfigurationError(wanted, "none", file=self.source.base)
        return tuple(found)

    def _is_region(self, name: str) -> bool:
        names = self.source.list_names(name)
        return "coadd/" in names if names is not None else self.source.size(self._likely_summary(name)) is not None

    def unit(self, region: str, brick: str) -> Unit:
        """The unit of a brick, under the name of the release that it belongs to."""
        return Unit(self.owners.get(region, self.name), region, brick)

    def prefix(self, region: str) -> str:
        """Folder of a region within the tree, ending in ``/``; empty for a tree without regions."""
        return "" if region == NO_REGION else f"{region}/"

    def _likely_summary(self, region: str) -> str:
        end = "" if region == NO_REGION else f"-{region}"
        return f"{self.prefix(region)}survey-bricks-{self.owners.get(region, self.name)}{end}.fits.gz"

    def summary_path(self, region: str) -> str | None:
        """Path of a region's brick table; None if the tree shows none."""
        key = f"summary/{region}"
        if key not in self._found:
            self._found[key] = self._find_summary(region)
        path: str | None = self._found[key]
        return path

    def _find_summary(self, region: str) -> str | None:
        names = self.source.list_names(self.prefix(region))
        if names is None:
            likely = self._likely_summary(region)
            return likely if self.source.size(likely) is not None else None
        found = [(match, name) for name in names if (match := _SUMMARY.fullmatch(name))]
        found.sort(key=lambda item: ((item[0].group("region") or NO_REGION) != region, item[1]))
        return self.prefix(region) + found[0][1] if found else None

    def brick_table(self, region: str) -> pa.Table:
        """Which bricks a region has, as `galpipe.survey.tables.read_brick_table`.

        A tree without a brick table is listed instead.

        Raises
        ------
        ConfigurationError
            If there is neither a table nor a listing.
        BadData
            If the table does not read.
        """
        key = f"bricks/{region}"
        if key not in self._found:
            path = self.summary_path(region)
            content = self.source.read_small(path) if path else None
            self._found[key] = read_brick_table(content, str(path)) if content is not None else self._listed_bricks(region)
        return self._found[key]

    def _listed_bricks(self, region: str) -> pa.Table:
        top = self.prefix(region) + "coadd"
        groups = self.source.list_names(top)
        if groups is None:
            raise ConfigurationError("a survey-bricks table or a folder listing", "neither", file=f"{self.source.base} {top}")
        names = []
        for group in groups:
            entries = self.source.list_names(f"{top}/{group.rstrip('/')}") if group.endswith("/") else None
            names += [match.group(1) for entry in entries or [] if (match := _BRICK_FOLDER.fullmatch(entry))]
        return brick_table(np.array(names, dtype="U8"), {}, top)

    def label(self, region: str) -> str:
        """What the release's own files call it (``dr9``), whatever it was named here."""
        match = _SUMMARY.fullmatch((self.summary_path(region) or "").rpartition("/")[2])
        return match.group("label") if match else self.owners.get(region, self.name)

    def bands(self, region: str) -> tuple[str, ...]:
        """Bands that a region's brick table counts exposures for; the usual four where it counts none."""
        found = {name.removeprefix("nexp_") for name in self.brick_table(region).column_names if name.startswith("nexp_")}
        return sort_bands(found) if found else _FALLBACK_BANDS

    def wanted_files(self, unit: Unit, fetch: FetchSettings, bands: tuple[str, ...] = ()) -> list[RemoteFile]:
        """The files to ask for: coadds of each product and band, the mask image and the Tractor table.

        Near the poles also the images of the neighbours that complete its stamps (`galpipe.survey.neighbours`).

        Parameters
        ----------
        unit : Unit
        fetch : FetchSettings
        bands : tuple of str
            Empty means every band of the region.
        """
        prefix, brick, group = self.prefix(unit.region), unit.brick, unit.brick[:3]
        coadd = f"{prefix}coadd/{group}/{brick}/"
        found = []
        for band in bands or self.bands(unit.region):
            for product in fetch.products:
                name = f"legacysurvey-{brick}-{product}-{band}.fits.fz"
                found.append(RemoteFile(coadd + name, name, product, band))
        mask, table = f"legacysurvey-{brick}-maskbits.fits.fz", f"tractor-{brick}.fits"
        found.append(RemoteFile(coadd + mask, mask, "maskbits"))
        found.append(RemoteFile(f"{prefix}tractor/{group}/{table}", table, "tractor"))
        for other in stamp_neighbours_of(brick):
            found += self._images_of(unit.region, other.name, fetch, bands)
        return found

    def _images_of(self, region: str, brick: str, fetch: FetchSettings, bands: tuple[str, ...]) -> list[RemoteFile]:
        """What completes a neighbour's stamps: image, inverse variance and mask."""
        coadd, product_of = f"{self.prefix(region)}coadd/{brick[:3]}/{brick}/", "{}" + NEIGHBOUR + brick
        products = [product for product in ("image", "invvar") if product in fetch.products]
        pairs = [(product, band) for band in bands or self.bands(region) for product in products]
        found = []
        for product, band in [*pairs, ("maskbits", "")]:
            name = f"legacysurvey-{brick}-{product}{'-' if band else ''}{band}.fits.fz"
            found.append(RemoteFile(coadd + name, name, product_of.format(product), band))
        return found

    def checksum_lists(self, unit: Unit) -> list[str]:
        """Paths of the published lists that concern a brick: of its and its neighbours' coadds, and of the Tractor tables beside its own.

        The survey's own name, or where a listing shows other ``.sha256sum`` files, those.
        """
        prefix = self.prefix(unit.region)
        label, found = self.label(unit.region), []
        others = [checksum_folders(replace(unit, brick=other.name), prefix)[0] for other in stamp_neighbours_of(unit.brick)]
        for folder in (*checksum_folders(unit, prefix), *others):
            likely = folder + published_name(label, unit.region, folder, prefix)
            if self.checksums(likely):
                found.append(likely)
            else:
                shown = self.source.list_names(folder) or []
                found += [folder + name for name in shown if name.endswith(LIST_ENDING) and folder + name != likely]
        return found

    def tractor_list(self, region: str, group: str) -> str:
        """Path of the list of all Tractor tables of a group (``brick[:3]``), by the survey's own name."""
        prefix = self.prefix(region)
        folder = f"{prefix}tractor/{group}/"
        return folder + published_name(self.label(region), region, folder, prefix)

    def coadd_list(self, unit: Unit) -> str:
        """Path of the list of a brick's coadds, by the survey's own name."""
        prefix = self.prefix(unit.region)
        folder = checksum_folders(unit, prefix)[0]
        return folder + published_name(self.label(unit.region), unit.region, folder, prefix)

    def keep_checksums(self, path: str, sums: dict[str, str]) -> None:
        """Take over what a list says, so that `checksums` need not ask for it."""
        kept: dict[str, dict[str, str]] = self._found.setdefault("checksums", {})
        kept.pop(path, None)
        kept[path] = sums

    def checksums(self, path: str) -> dict[str, str]:
        """The sha256 by file name of a published list; empty where there is none.

        The last few lists are kept: all Tractor tables of 0.1 deg in RA share one.
        """
        kept: dict[str, dict[str, str]] = self._found.setdefault("checksums", {})
        if path not in kept:
            content = self.source.read_small(path)
            for oldest in list(kept)[: len(kept) - _KEPT_LISTS + 1]:
                kept.pop(oldest, None)
            kept[path] = parse_checksums(content.decode("utf-8", "replace")) if content else {}
        return kept.get(path, {})


def open_release(spec: str, name: str = "", settings: FetchSettings | None = None) -> Release:
    """Find a release by name, folder or address.

    Parameters
    ----------
    spec : str
        ``dr8`` to ``dr11``, a folder with a release tree, its ``http(s)://`` or ``s3://`` address; ``ls-dr10``, or another union of
        such as ``REGION=RELEASE,REGION=RELEASE``.
    name : str
        What to call it; default is the known name, or the last part of the path or address. A union's bricks keep the names of
        the releases they come from unless one is given.
    settings : FetchSettings, optional
        For what is read from a server while planning.

    Raises
    ------
    ConfigurationError
        If the release is unknown or its name cannot be a folder name.
    """
    chosen_settings = settings or FetchSettings()
    parts = {} if Path(spec).is_dir() else union_parts(spec)
    if parts:
        members = {region: _open_one(part, chosen_settings) for region, part in parts.items()}
        owners = {region: name or found for region, (_, found) in members.items()}
        union = name or (spec if spec in KNOWN_UNIONS else "+".join(dict.fromkeys(owners.values())))
        return _checked(Release(union, UnionSource({region: source for region, (source, _) in members.items()}), owners))
    source, found = _open_one(spec, chosen_settings)
    return _checked(Release(name or found, source))


def _checked(release: Release) -> Release:
    for region in release.owners or (NO_REGION,):
        release.unit(region, "0")
    return release


def _open_one(spec: str, settings: FetchSettings) -> tuple[Source, str]:
    """Source and name of a release that is no union."""
    if spec in KNOWN_NAMES:
        return HttpSource(KNOWN_ROOT.format(name=spec), settings), spec
    if spec.startswith(("http://", "https://")):
        return HttpSource(spec.rstrip("/") + "/", settings), _name_of(spec)
    if spec.startswith("s3://"):
        return _bucket(spec.rstrip("/") + "/", settings), _name_of(spec)
    if Path(spec).is_dir():
        folder = Path(spec).resolve()
        return FolderSource(str(folder)), folder.name
    known = ", ".join((*KNOWN_NAMES, *KNOWN_UNIONS))
    raise ConfigurationError(f"a release: {known}, an existing folder, an http(s) or s3 address, or REGION=RELEASE,...", repr(spec))


def _bucket(base: str, settings: FetchSettings) -> Source:
    try:
        from galpipe.survey.s3 import S3Source
    except ImportError as error:
        raise ConfigurationError("boto3, to read from S3 (pip install 'galpipe[s3]')", str(error), file=base) from error
    return S3Source(base, settings)


def _name_of(address: str) -> str:
    parts = urlsplit(address)
    last = unquote(parts.path).rstrip("/").rpartition("/")[2]
    return last or re.sub(r"[^A-Za-z0-9.]+", "-", parts.netloc)
