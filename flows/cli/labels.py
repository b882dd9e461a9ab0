"""The verb about label sets: labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import finish, json_option, say, verb

if TYPE_CHECKING:
    from galpipe.labels.labelset import LabelSet


@click.group()
def labels() -> None:
    """Sets of labelled galaxies."""


@labels.command("show")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--pictures", default="", metavar="SET", help="The known set whose pictures these are drawn like [default: by the file's name]."
)
@click.option("--images", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Folder of the files that a table names.")
@json_option
@verb
def show_command(files: tuple[Path, ...], pictures: str, images: Path | None, as_json: bool) -> None:
    """Rows, labels, route, rows that cannot be used and why, and galaxies that are there more than once.

    FILES are Parquet files with images, Stein-layout HDF5, tables of labels beside image files, or folders with one subfolder per class.
    Every image is read once.
    """
    from galpipe.labels.groups import group_rows
    from galpipe.labels.labelset import open_labels

    sets = [open_labels(path, pictures, images) for path in files]
    say(f"reading the images of {sum(len(item) for item in sets)} rows")
    groups = group_rows(sets)
    shown = [_shown(item) for item in sets]
    failures = [{"unit": item.id, "file": item.file, "kind": "bad_data", "reason": item.reason} for item in groups.dropped]
    shared = [
        {"one": str(files[one]), "other": str(files[other]), "galaxies": groups.shared(one, other)}
        for one in range(len(sets))
        for other in range(one + 1, len(sets))
        if groups.shared(one, other)
    ]
    counts = {
        "rows": sum(len(item) for item in sets),
        "dropped": len(failures),
        "galaxies": len(groups.keys),
        "repeated": groups.repeated(),
    }
    # rows that cannot be used are named; the others are, so this is no failure of the verb
    result = {"status": "ok", "counts": counts, "failures": failures, "sets": shown, "shared": shared}
    finish(result, as_json, _text(result))


def _shown(item: LabelSet) -> dict[str, Any]:
    columns = [
        {"name": c.name, "kind": c.kind, "known": c.known, "undetermined": c.undetermined, "counts": c.counts}
        for c in item.columns
        if c.kind != "identity"
    ]
    kind = item.kind
    return {
        "file": item.path,
        "rows": len(item),
        "route": item.route,
        "stretch": kind.stretch.name if kind else None,
        "photometric": kind.stretch.photometric if kind else True,
        "stretch_assumed": item.kind_assumed,
        "pixscale": kind.pixscale if kind else None,
        "with_position": int((item.ra == item.ra).sum()),
        "remarks": list(item.source.remarks),
        "columns": columns,
    }


def _text(result: dict[str, Any]) -> str:
    lines = []
    for item in result["sets"]:
        drawn = f", drawn as {item['stretch']}{' (assumed)' if item['stretch_assumed'] else ''}" if item["stretch"] else ""
        lines.append(f"{item['file']}: {item['rows']} rows, {item['route']}{drawn}, {item['with_position']} with position")
        lines += [f"  {remark}" for remark in item["remarks"]]
        for column in item["columns"]:
            counts = ", ".join(f"{name} {count}" for name, count in list(column["counts"].items())[:12])
            lost = f", {column['undetermined']} undetermined" if column["undetermined"] else ""
            lines.append(f"  {column['name']:<52} {column['kind']:<9} {column['known']} known{lost}{': ' + counts if counts else ''}")
    lines += [f"  without a stamp: {item['unit']}: {item['reason']}" for item in result["failures"]]
    lines += [f"{item['one']} and {item['other']} share {item['galaxies']} galaxies" for item in result["shared"]]
    counts = result["counts"]
    lines.append(f"{counts['rows']} rows, {counts['dropped']} dropped, {counts['galaxies']} galaxies, {counts['repeated']} repeated")
    return "\n".join(lines)
