"""The one module that knows where everything lies under the root folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from galpipe.unit import Unit


def folder_beside(folder: Path, brick: str) -> Path:
    """Folder of the fetched files of another brick of the same release and region; ``folder`` is from `Layout.brick_folder`."""
    return folder.parent.parent / brick[:3] / brick


@dataclass(frozen=True)
class Layout:
    """Paths under one root.

    Parameters
    ----------
    root : Path
        The root folder; made absolute.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).absolute())

    def relative(self, path: Path) -> str:
        """A path under the root, as stored in receipts and the ledger."""
        return path.relative_to(self.root).as_posix()

    def brick_folder(self, unit: Unit) -> Path:
        """Fetched files of a brick, under their published names, with ``fetch.json`` beside them."""
        return self.root / "bricks" / unit.release / unit.region / unit.brick[:3] / unit.brick

    def stamps(self, unit: Unit, cut: str) -> Path:
        """The Zarr store of a brick's stamps; ``cut`` names the cut settings."""
        return self.root / "stamps" / cut / unit.release / unit.region / unit.brick[:3] / f"{unit.brick}.zarr"

    def stamps_of(self, unit: Unit) -> list[Path]:
        """The stores of a brick's stamps that there are, whatever their cut settings, newest first."""
        found = (self.root / "stamps").glob(f"*/{unit.release}/{unit.region}/{unit.brick[:3]}/{unit.brick}.zarr")
        return sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path))

    def stores(self) -> Iterator[tuple[Unit, Path]]:
        """Every store of stamps under the root, whatever its cut settings."""
        for path in sorted((self.root / "stamps").glob("*/*/*/*/*.zarr")):
            if not path.name.startswith("."):
                yield Unit(path.parts[-4], path.parts[-3], path.stem), path

    def brick_folders(self) -> Iterator[tuple[Unit, Path]]:
        """Every folder of fetched files under the root."""
        for path in sorted((self.root / "bricks").glob("*/*/*/*")):
            if path.is_dir() and not path.name.startswith("."):
                yield Unit(path.parts[-4], path.parts[-3], path.name), path

    def catalogs(self) -> list[str]:
        """Names of the catalogs under the root."""
        return sorted(path.name for path in (self.root / "catalog").glob("*") if path.is_dir())

    def catalog(self, name: str) -> Path:
        """Folder of a catalog's shards."""
        return self.root / "catalog" / name

    def shard(self, unit: Unit, name: str) -> Path:
        """The Parquet shard of a brick."""
        return self.shard_group(unit, name) / self.shard_file(unit)

    def shard_group(self, unit: Unit, name: str) -> Path:
        """Folder of the shards of 0.1 deg in RA: of every unit with the same release, region and ``brick[:3]``."""
        return self.catalog(name) / unit.release / unit.region / unit.brick[:3]

    def shard_file(self, unit: Unit) -> str:
        """Name of a brick's shard in its folder."""
        return f"{unit.brick}.parquet"

    def outcomes(self, unit: Unit, name: str) -> Path:
        """What became of every source of a brick."""
        return self.shard(unit, name).with_suffix(".outcomes.parquet")

    def collection(self, name: str) -> Path:
        """The file that binds a catalog's name to one configuration and model."""
        return self.catalog(name) / "collection.json"

    def recipes(self, name: str) -> Path:
        """Folder of the recipes that a catalog's shards were ever made by: settings and model parts, one file each."""
        return self.catalog(name) / "recipes"

    def remote(self, release: str, region: str, group: str) -> Path:
        """What the release's checksum list of a group (``brick[:3]``) said when it was last asked; may be deleted."""
        return self.root / "remote" / release / region / f"{group}.json.gz"

    def hats(self, name: str) -> Path:
        """Folder of a catalog's published versions, ``v1``, ``v2``, ... and ``current``."""
        return self.root / "hats" / name

    def search(self, name: str, version: int) -> Path:
        """Index for look-alikes and outliers of one published version; may be deleted."""
        return self.root / "search" / name / f"v{version}"

    def catalog_report(self, name: str, what: str) -> Path:
        """Page of a catalog; ``what`` names version and region, as letters, digits, dots and dashes."""
        return self.root / "reports" / name / f"{what}.html"

    @property
    def ledger(self) -> Path:
        """The ledger's SQLite file."""
        return self.root / "ledger.sqlite"

    @property
    def models(self) -> Path:
        """Models trained under this root: ``models/<model>/<version>/``."""
        return self.root / "models"

    @property
    def benchmark(self) -> Path:
        """The drawn benchmark mock, with what was learned from it beside its packs."""
        return self.root / "benchmark"

    def run_folder(self, run_id: str) -> Path:
        """Summary, settings and report of one run."""
        return self.root / "runs" / run_id

    @property
    def prefect_home(self) -> Path:
        """Prefect's database and logs; runs with different roots must not share them."""
        return self.root / "prefect"

    def unit_of_shard(self, path: Path, name: str) -> Unit:
        """The unit a shard's path stands for; the inverse of `shard`."""
        release, region, _, file = path.relative_to(self.catalog(name)).parts
        return Unit(release, region, file.removesuffix(".parquet"))
