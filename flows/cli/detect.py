"""The verb that finds objects in whole images: detect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import finish, json_option, root_option, verb
from galpipe.errors import BadData, ConfigurationError, GalpipeError
from galpipe.unit import Unit

if TYPE_CHECKING:
    from galpipe.layout import Layout
    from galpipe.lvm.field import SkyField


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--brick", "bricks", multiple=True, help="A brick by name; repeatable.")
@click.option("--release", default="dr9", show_default=True, help="The bricks' release.")
@click.option("--region", default="south", show_default=True, type=click.Choice(["north", "south"]), help="The bricks' region.")
@click.option(
    "--tree", type=click.Path(path_type=Path, file_okay=False), help="Release tree with the bricks [default: those fetched under ROOT]."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for one Parquet file per image.")
@click.option("--model", default="shipped", show_default=True, help="Model by name, hash or folder.")
@root_option
@json_option
@verb
def detect(
    files: tuple[Path, ...],
    bricks: tuple[str, ...],
    release: str,
    region: str,
    tree: Path | None,
    out: Path,
    model: str,
    root: Path,
    as_json: bool,
) -> None:
    """Every object of FITS images of any size, or of whole bricks: position, box, mask, class, score.

    The image is seen in overlapping tiles of a stamp's size; each object is listed once. FILES have 0.262 arcsec per pixel, north up.
    """
    from flows.progress import ProgressBoard
    from galpipe.layout import Layout
    from galpipe.lvm.predict import Predictor
    from galpipe.lvm.registry import model_folder
    from galpipe.lvm.tiles import detect as detect_objects

    if not files and not bricks:
        raise ConfigurationError("FITS files or --brick", "neither")
    layout = Layout(root)
    predictor = Predictor.load(model_folder(model, layout.models), threads=1)
    units = [Unit(release, region, name) for name in bricks]
    written: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    with ProgressBoard({"tiles": 1}) as board:
        for image in _images(files, units, (layout, tree)):
            if isinstance(image, GalpipeError):
                failures.append({"unit": image.unit, "file": image.file, "kind": image.kind, "reason": str(image)})
                continue
            table = detect_objects(predictor, image, progress=board.phase)
            path = out / f"{Path(image.name).stem}-objects.parquet"
            _write(path, table, {"image": image.name, "model": predictor.model_hash})
            written.append({"image": image.name, "objects": table.num_rows, "file": path})
    status = "failed" if failures else "ok"
    counts = {"images": len(written), "objects": sum(item["objects"] for item in written)}
    lines = [f"{item['image']}: {item['objects']} objects, {item['file']}" for item in written]
    lines += [f"not done: {item['reason']}" for item in failures]
    finish({"status": status, "counts": counts, "failures": failures, "written": written}, as_json, "\n".join(lines))


def _images(files: tuple[Path, ...], units: list[Unit], places: tuple[Layout, Path | None]) -> Iterator[SkyField | GalpipeError]:
    """One image after the other, or why it cannot be had; a bad one never stops the others."""
    from galpipe.lvm.field import brick_field, file_field
    from galpipe.lvm.mocksky import local_files
    from galpipe.survey.files import load_brick_files

    for path in files:
        try:
            yield file_field(path)
        except GalpipeError as error:
            yield error
    layout, tree = places
    for unit in units:
        try:
            folder = layout.brick_folder(unit)
            found = local_files(tree, unit) if tree is not None else load_brick_files(folder, unit)
            if found is None:
                raise BadData(
                    "a fetched brick", "none; galpipe run --keep bricks fetches it, or give --tree", unit=str(unit), file=str(folder)
                )
            yield brick_field(found)
        except GalpipeError as error:
            yield error


def _write(path: Path, table: Any, facts: dict[str, str]) -> None:
    import pyarrow.parquet as pq

    from galpipe.commit import replace_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as aside:
        pq.write_table(table.replace_schema_metadata({"galpipe": json.dumps(facts)}), aside, compression="zstd")
