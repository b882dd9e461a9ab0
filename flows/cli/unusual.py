"""The verbs about unusual objects: similar, outliers, evaluate unusual."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import emit, json_option, name_option, root_option, say, verb
from flows.progress import ProgressBoard
from galpipe.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

    from catalogs.lookalikes import FloatArray, Search, Version

version_option = click.option("--as-of", "version", type=int, help="A published version (default: the current one).")
out_option = click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the rows to .parquet .fits .csv .vot .json too."
)
pictures_option = click.option("--pictures", type=click.Path(path_type=Path, dir_okay=False), help="Write a PNG of their stamps.")


@click.command()
@click.argument("what")
@root_option
@name_option
@click.option("--n", "count", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Galaxies wanted.")
@click.option("--exact", is_flag=True, help="Go through every row instead of the index.")
@click.option("--row", default=0, show_default=True, help="Stamp of a FILE with several.")
@version_option
@out_option
@pictures_option
@json_option
@verb
def similar(
    what: str,
    root: Path,
    name: str,
    count: int,
    exact: bool,
    row: int,
    version: int | None,
    out: Path | None,
    pictures: Path | None,
    as_json: bool,
) -> None:
    """The galaxies that look most like WHAT: a source_id of the catalog, or a FILE with a stamp (FITS, npz, HDF5, picture)."""
    from catalogs.lookalikes import open_version
    from galpipe.layout import Layout

    found = open_version(Layout(root), name, version)
    search = _opened(found)
    by_id = what.lstrip("-").isdigit()
    query = search.embedding_of(int(what)) if by_id else _embedding_of_file(found, Path(what), row)
    table = search.like(query, count, exact=exact, without=int(what) if by_id else None)
    result = {"query": what, "version": found.number, "model_hash": found.model, "exact": exact}
    _finish(table, result, (found, out, pictures, "distance"), as_json)


@click.command()
@root_option
@name_option
@click.option("--n", "count", default=50, show_default=True, type=click.IntRange(1, 1_000_000), help="Galaxies wanted.")
@version_option
@out_option
@pictures_option
@json_option
@verb
def outliers(root: Path, name: str, count: int, version: int | None, out: Path | None, pictures: Path | None, as_json: bool) -> None:
    """The most unusual galaxies of a catalog: those whose nearest look-alikes are farthest."""
    from catalogs.lookalikes import open_version
    from galpipe.layout import Layout

    found = open_version(Layout(root), name, version)
    search = _opened(found)
    result = {"version": found.number, "model_hash": found.model, "file": str(search.folder / "outliers.parquet")}
    _finish(search.outliers(count), result, (found, out, pictures, "outlier_score"), as_json)


def _opened(version: Version) -> Search:
    from catalogs.lookalikes import open_search

    with ProgressBoard({"index": 0}) as board:
        return open_search(version, lambda what, done, total: board.phase(what, done, total))


def _embedding_of_file(version: Version, file: Path, row: int) -> FloatArray:
    """The embedding of a stamp of a file, by the model that made the version."""
    from catalogs.collection import read_binding
    from galpipe.lvm.predict import Predictor
    from galpipe.lvm.registry import list_models, model_folder
    from galpipe.stamps.external import read_stamps

    if not file.exists():
        raise ConfigurationError("a source_id or a file with a stamp", repr(str(file)))
    folders = [entry.folder for entry in list_models(version.layout.models) if entry.model_hash == version.model]
    binding = read_binding(version.layout, version.name)
    if not folders and binding is not None:
        folders = [model_folder(binding.model, version.layout.models)]
    predictor = Predictor.load(folders[0]) if folders else None
    if predictor is None or predictor.model_hash != version.model:
        got = predictor.model_hash if predictor else "none"
        raise ConfigurationError(f"the model {version.model} that made the catalog: embeddings of two models cannot be compared", got)
    seen = 0
    for item in read_stamps([file]):
        if isinstance(item, Exception):
            raise item
        if row < seen + len(item):
            return predictor.raw(item.take([row - seen]), 1).embedding
        seen += len(item)
    raise ConfigurationError(f"--row below the file's {seen} stamps", str(row), file=str(file))


def _finish(table: pa.Table, result: dict[str, Any], what: tuple[Version, Path | None, Path | None, str], as_json: bool) -> None:
    from catalogs.formats import write_result
    from catalogs.sheet import sheet

    version, out, pictures, figure = what
    rows = table.to_pylist()
    result |= {"status": "ok", "counts": {"rows": len(rows)}, "failures": []}
    if out is not None:
        for note in write_result(table, out):
            say(f"note: {note}")
        result["out"] = str(out)
    if pictures is not None:
        from galpipe.commit import write_bytes

        content, drawn = sheet(version.layout, rows, [f"{row[figure]:.3f}" for row in rows])
        write_bytes(pictures.absolute(), content)
        result |= {"pictures": str(pictures), "counts": {"rows": len(rows), "pictures": drawn}}
    # ids are wider than what JSON readers keep exact, also where this one happens not to be
    listed = [row | {"source_id": str(row["source_id"])} for row in rows]
    lines = [
        f"{row['source_id']:>20}  {_degrees(row['ra'])}  {_degrees(row['dec'])}  {row[figure]:.4f}  {row['brickname']}" for row in rows
    ]
    emit(result | {"rows": listed}, as_json, "\n".join(lines) or "no other galaxy")


def _degrees(value: float | None) -> str:
    return " " * 10 if value is None else f"{value:10.5f}"


@click.command()
@click.option(
    "--held",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Packs of held-out mock stamps, or a folder of them.",
)
@click.option("--real", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder with stamps/, labels/ and lens/.")
@click.option("--count", default=400, show_default=True, type=click.IntRange(50), help="Held-out stamps.")
@click.option("--seed", default=1, show_default=True)
@click.option("--model", default="shipped", show_default=True, help="Model by name or folder.")
@root_option
@json_option
@verb
def unusual(held: tuple[Path, ...], real: Path | None, count: int, seed: int, model: str, root: Path, as_json: bool) -> None:
    """What is out of domain, what is a lens, what is an outlier: how well each is told, on held-out mock stamps and real ones.

    Packs are what `galpipe train` leaves under WORK/packs/held (WORK/survey/packs/held for the survey-like sky).
    """
    from galpipe.evaluate.unusual import domain_figures, held_stamps, lens_figures, outlier_figures
    from galpipe.lvm.frozen import only_heads
    from galpipe.lvm.model import device_of
    from galpipe.lvm.predict import Predictor
    from galpipe.lvm.registry import model_folder
    from galpipe.lvm.weights import load_model

    packs = [path for folder in held for path in ([folder] if (folder / "image.npy").exists() else sorted(folder.iterdir()))]
    loaded = load_model(model_folder(model, root / "models"))
    heads = [name for name in ("domain", "lens") if name in loaded.model.settings.heads]
    predictor = Predictor(only_heads(loaded.model, heads), loaded.card, loaded.model_hash, device_of())
    stamps = held_stamps(packs, count, seed)
    result: dict[str, Any] = {"status": "ok", "counts": {"stamps": len(stamps)}, "failures": [], "model_hash": predictor.model_hash}
    result["outliers"] = outlier_figures(predictor, stamps, seed)
    if "domain" in heads:
        result["domain"] = [asdict(item) for item in domain_figures(predictor, stamps, real, seed)]
    if "lens" in heads:
        result["lens"] = lens_figures(predictor, stamps, real, seed)
    emit(result, as_json, _text(result))


def _text(result: dict[str, Any]) -> str:
    lines = [f"model {result['model_hash']}, {result['counts']['stamps']} held-out mock stamps"]
    for item in result.get("domain", []):
        told = f"AUC {item['auc']:.3f}  median {item['median']:.2f}  above 0.95 {item['flagged']:.2f}"
        lines.append(f"domain   {told}  {item['what']} ({item['count']}) beside {item['beside']}")
    lens = result.get("lens", {})
    lines += [f"lens     AUC {area:.3f}  {lens['drawn_lenses']} drawn lenses beside {what}" for what, area in lens.get("auc", {}).items()]
    lines += [f"lens     recall {item['recall']:.2f}  purity {item['purity']:.3f} at 1 in 1000" for item in lens.get("purity", [])]
    for item in lens.get("real", {}).get("lenses", []):
        lines.append(f"lens     {item['file']}: score {item['score']:.2f}, {item['above_mock']:.3f} of mock galaxies above")
    for item in result["outliers"]:
        told = f"recall {item['recall']:.2f} (chance {item['chance_recall']:.2f})"
        lines.append(f"outliers {item['kind']}: {told} within {item['looks']} looks of {item['of']}")
    return "\n".join(lines)
