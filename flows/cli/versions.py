"""The verbs about published versions: versions, diff, clean."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.cli.common import emit, human_bytes, json_option, name_option, root_option, verb
from flows.progress import ProgressBoard
from galpipe.errors import ConfigurationError

if TYPE_CHECKING:
    from catalogs.clean import Sweep
    from catalogs.diff.compare import Difference
    from catalogs.versions import VersionInfo

SHOWN_COLUMNS = 25


@click.group(invoke_without_command=True)
@root_option
@name_option
@json_option
@click.pass_context
def versions(context: click.Context, root: Path, name: str, as_json: bool) -> None:
    """The published versions: date, rows, model, partitions, bytes; `pin` and `unpin` keep one from being cleaned."""
    context.obj = root, name, as_json
    if context.invoked_subcommand is None:
        _list(root=root, name=name, as_json=as_json)


@verb
def _list(root: Path, name: str, as_json: bool) -> None:
    from catalogs.hats import version_folder
    from catalogs.hats import versions as numbers
    from catalogs.versions import describe
    from galpipe.layout import Layout

    layout = Layout(root)
    if not (found := [describe(layout, name, number) for number in numbers(layout, name)]):
        version_folder(layout, name)
    listed = [item.as_dict() for item in found]
    emit({"status": "ok", "counts": {"versions": len(found)}, "failures": [], "versions": listed}, as_json, "\n".join(map(_line, found)))


def _line(item: VersionInfo) -> str:
    model = ", ".join(text[:12] for text in item.models) or "unknown"
    files = f"{item.partitions_written} partitions written, {item.partitions_linked} linked"
    size = f"{human_bytes(item.bytes)} ({human_bytes(item.own_bytes)} its own)"
    marks = ["current"] * item.current + ([f"pinned {item.pin.note}".strip()] if item.pin else [])
    return f"v{item.version:<4} {item.created[:19]}Z  {item.rows} rows  model {model}  {files}  {size}  {' '.join(marks)}".rstrip()


def _also_after(command: Callable[..., None]) -> Callable[..., None]:
    """The group's options again, so that they may follow the sub-command as well."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output."),
        click.option("--name", help="Name of the catalog."),
        click.option("--root", type=click.Path(path_type=Path, file_okay=False), help="Folder that holds everything."),
    ):
        command = option(command)
    return click.pass_context(command)


@versions.command()
@click.argument("version")
@click.option("--note", default="", help="Why it stays, such as the paper that it is cited in.")
@_also_after
def pin(context: click.Context, version: str, note: str, root: Path | None, name: str | None, as_json: bool) -> None:
    """Keep a version whatever `galpipe clean` is told."""
    given = context.obj
    _pin(root=root or given[0], name=name or given[1], as_json=as_json or given[2], version=version, note=note)


@versions.command()
@click.argument("version")
@_also_after
def unpin(context: click.Context, version: str, root: Path | None, name: str | None, as_json: bool) -> None:
    """Let `galpipe clean` decide about a version again."""
    given = context.obj
    _pin(root=root or given[0], name=name or given[1], as_json=as_json or given[2], version=version, note=None)


@verb
def _pin(root: Path, name: str, as_json: bool, version: str, note: str | None) -> None:
    from catalogs import versions as published
    from galpipe.layout import Layout

    name, number = published.reference(Layout(root), version, name)
    if note is None:
        published.unpin(Layout(root), name, number)
    else:
        published.pin(Layout(root), name, number, note)
    said = f"version {number} {'is no longer pinned' if note is None else 'is pinned'}"
    emit({"status": "ok", "counts": {}, "failures": [], "version": number, "pinned": note is not None}, as_json, said)


@click.command()
@click.argument("before")
@click.argument("after")
@root_option
@name_option
@click.option("--columns", default="", help="Comma-separated columns to compare (default: all that both have).")
@click.option("--match-position", "radius", type=float, metavar="ARCSEC", help="Match rows by position alone, not by source_id.")
@click.option(
    "--out",
    "outs",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the differing rows (.parquet, .csv, .fits, ...), or a picture (.png); may be given again.",
)
@json_option
@verb
def diff(
    before: str, after: str, root: Path, name: str, columns: str, radius: float | None, outs: tuple[Path, ...], as_json: bool
) -> None:  # one parameter per option of the command line
    """Rows added, removed and changed between two versions, and by how much.

    BEFORE and AFTER are versions (3, v3), dates, or NAME@VERSION of another catalog. Rows whose ids belong to different releases are
    matched by position, within 1 arcsec.
    """
    from catalogs.diff.compare import diff as compare
    from catalogs.diff.compare import open_sides
    from catalogs.diff.output import check_format, writer
    from catalogs.diff.picture import draw
    from catalogs.versions import reference
    from galpipe.layout import Layout

    tables, pictures = [path for path in outs if path.suffix.lower() != ".png"], [path for path in outs if path.suffix.lower() == ".png"]
    if len(tables) > 1 or len(pictures) > 1:
        raise ConfigurationError("one table and one picture at most", ", ".join(map(str, outs)))
    for path in tables:
        check_format(path)
    layout = Layout(root)
    sides = reference(layout, before, name), reference(layout, after, name)
    found = open_sides(layout, *sides, [item for item in columns.split(",") if item])
    with ProgressBoard({"diff": 0}) as board:

        def progress(done: int, total: int) -> None:
            board.update("diff", done, total)

        if tables:
            with writer(found, tables[0]) as take:
                compare(found, radius, take, progress)
        else:
            compare(found, radius, progress=progress)
    for path in pictures:
        draw(found, path)
    emit({"status": "ok", "failures": [], **found.as_dict(), "files": [str(path) for path in outs]}, as_json, _differences(found))


def _differences(found: Difference) -> str:
    told = found.as_dict()
    one, other = found.before, found.after
    lines = [
        f"{one.name} v{one.version} ({one.created}): {found.rows_before} rows",
        f"{other.name} v{other.version} ({other.created}): {found.rows_after} rows",
        f"{found.added} added, {found.removed} removed, {found.changed} changed, {found.unchanged} as they were"
        + (f"; {found.by_position} matched by position" if found.by_position else "")
        + (f"; {found.remade} made again" if found.remade else ""),
        f"{found.partitions_compared} partitions compared, {found.partitions_skipped} shared and not read",
    ]
    lines += [
        f"columns {kind}: {', '.join(told[f'columns_{kind}'])}" for kind in ("added", "removed", "retyped") if told[f"columns_{kind}"]
    ]
    if found.columns():
        lines.append(f"{'column':<40} {'rows changed':>12} {'median':>11} {'largest':>11}")
    for name, amounts in found.columns()[:SHOWN_COLUMNS]:
        lines.append(f"{name:<40} {amounts.changed:>12} {amounts.median:>11.4g} {amounts.largest:>11.4g} {told['columns'][name]['unit']}")
    if len(found.columns()) > SHOWN_COLUMNS:
        lines.append(f"{len(found.columns()) - SHOWN_COLUMNS} more columns with --json")
    return "\n".join(lines)


@click.command()
@root_option
@name_option
@click.option("--keep-versions", type=int, metavar="N", help="Remove versions but for the N newest.")
@click.option("--keep-days", type=float, metavar="D", help="Remove versions older than D days; with --keep-versions, what neither keeps.")
@click.option("--bricks", is_flag=True, help="Remove fetched files of bricks that are done.")
@click.option("--stamps", is_flag=True, help="Remove stamps of bricks that are done and that no kept version has in its index.")
@click.option("--unused-stamps", is_flag=True, help="Remove stamps of cut settings that no catalog uses, unless a kept version has them.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@verb
def clean(
    root: Path,
    name: str,
    keep_versions: int | None,
    keep_days: float | None,
    bricks: bool,
    stamps: bool,
    unused_stamps: bool,
    dry_run: bool,
    as_json: bool,
) -> None:  # one parameter per option of the command line
    """Give back disk: what killed runs left, old versions, and on request stamps and bricks.

    The current version, pinned ones and everything that a kept version needs stay.
    """
    from catalogs.clean import Rules, plan
    from catalogs.clean import clean as remove
    from galpipe.layout import Layout

    layout, rules = Layout(root), Rules(keep_versions, keep_days, bricks, stamps, unused_stamps)
    if dry_run:
        found = plan(layout, name, rules)
    else:
        with ProgressBoard({"clean": 0}) as board:
            found = remove(layout, name, rules, f"clean-{secrets.token_hex(3)}", lambda done, total: board.update("clean", done, total))
    emit({"status": "ok", "failures": [], "dry_run": dry_run, **found.as_dict(layout)}, as_json, _swept(found, layout.root, dry_run))


def _swept(found: Sweep, root: Path, dry_run: bool) -> str:
    lines = [f"keep    v{version}: {reason}" for version, reason in found.kept.items()]
    lines += [
        f"remove  {item.path.relative_to(root)}: {human_bytes(item.bytes)}" for item in found.items if item.kind in ("version", "search")
    ]
    for kind in ("stamps", "bricks", "asides"):
        if sizes := [item.bytes for item in found.items if item.kind == kind]:
            lines.append(f"remove  {kind}: {len(sizes)} folders, {human_bytes(sum(sizes))}")
    if found.stamps_kept:
        lines.append(f"keep    {found.stamps_kept} stores of stamps that a kept version has in its index")
    return "\n".join([*lines, f"{human_bytes(found.bytes)} {'would be freed (--dry-run)' if dry_run else 'freed'}"])
