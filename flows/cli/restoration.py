"""How good restored images are: evaluate restoration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.common import emit, json_option, root_option, say, verb
from flows.progress import ProgressBoard
from galpipe.errors import BadData, ConfigurationError

if TYPE_CHECKING:
    from galpipe.lvm.pack import Pack


@click.command()
@click.option("--bands", default="r", show_default=True, help="Comma-separated bands to measure.")
@click.option("--stamps", type=click.IntRange(0), default=100, show_default=True, help="Stamps of each brick; 0 = all.")
@click.option("--benchmark", type=click.Path(path_type=Path, file_okay=False), help="Packs of the benchmark [default: ROOT/benchmark].")
@click.option(
    "--real", type=click.Path(path_type=Path, exists=True), multiple=True, help="Also real stamps: FITS files or folders; repeatable."
)
@click.option("--tune", is_flag=True, help="Choose the classical methods' parameters on the benchmark's training bricks, and end.")
@click.option("--model", default="shipped", show_default=True, help="Model by name, hash or folder.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a drawing of the figures (PNG).")
@root_option
@json_option
@verb
def restoration(
    bands: str,
    stamps: int,
    benchmark: Path | None,
    real: tuple[Path, ...],
    tune: bool,
    model: str,
    plot: Path | None,
    root: Path,
    as_json: bool,
) -> None:
    """Restored images against the noiseless ones, beside Richardson-Lucy and wavelets, in bins of S/N.

    The stamps of the frozen benchmark mock are blurred to 1 / 0.85 of their seeing with their noise brought back, and every second one
    loses a piece; every method restores them to the stamps' own PSF.
    """
    from galpipe.commit import write_bytes
    from galpipe.evaluate import restoration as measured
    from galpipe.evaluate.benchmark import BENCHMARK, benchmark_packs, training_pack
    from galpipe.evaluate.restoration_figure import draw
    from galpipe.lvm.inputs import MODEL_BANDS
    from galpipe.lvm.pack import read_pack
    from galpipe.lvm.predict import Predictor
    from galpipe.lvm.registry import model_folder

    wanted = tuple(item.strip() for item in bands.split(","))
    if not set(wanted) <= set(MODEL_BANDS):
        raise ConfigurationError(f"--bands among {','.join(MODEL_BANDS)}", repr(bands))
    predictor = Predictor.load(model_folder(model, root / "models"), threads=1)
    folder = benchmark or root / "benchmark"
    settings = measured.Settings(wanted, stamps)
    with ProgressBoard({}, quiet=False) as board:
        if tune:
            found = measured.tune(training_pack(folder, progress=board.phase), stamps, board.phase)
            emit({"status": "ok", "counts": {}, "failures": [], "tuned": found}, as_json, _tuned_text(found))
            return
        paths = benchmark_packs(folder, BENCHMARK, board.phase)
        packs = {path.name: read_pack(path) for path in paths}
        result = measured.measure(predictor, packs, settings, board.phase)
        photographed, failures = _real_packs(real)
        if photographed:
            result["real"] = measured.measure(predictor, photographed, settings, board.phase)
    counts = {"stamps": {name: len(measured.chosen_rows(pack, stamps)) for name, pack in packs.items()}}
    head = {"status": "ok", "counts": counts, "failures": failures, "model_hash": predictor.model_hash, "benchmark": BENCHMARK.version}
    if plot is not None:
        write_bytes(plot, draw(result["results"], wanted[0]))
    emit(head | result, as_json, text(result))


def _real_packs(files: tuple[Path, ...]) -> tuple[dict[str, Pack], list[dict[str, Any]]]:
    """Real stamps that have every band, as packs without truth: what they were before they were degraded is the truth."""
    from galpipe.lvm.pack import concatenate, pack_stamps
    from galpipe.stamps.external import read_stamps

    failures: list[dict[str, Any]] = []
    packs = []
    for item in read_stamps([file for path in files for file in (sorted(path.glob("*.fits")) if path.is_dir() else [path])]):
        if isinstance(item, BadData):
            failures.append({"unit": "", "file": item.file, "kind": item.kind, "reason": str(item)})
        else:
            packs.append(pack_stamps(item))
    if files and not packs:
        say("no real stamp could be read")
    return ({"real": concatenate(packs)} if packs else {}), failures


def text(result: dict[str, Any]) -> str:
    """The figures as a table for people."""
    lines = [
        f"target PSF in {band}: mean FWHM {psf['target_fwhm']:.2f} arcsec ({psf['target_fwhm_low']:.2f} to {psf['target_fwhm_high']:.2f}), "
        f"from {psf['input_fwhm']:.2f}"
        for band, psf in result["target"].items()
    ]
    lines += _table(result["results"])
    if "real" in result:
        lines += ["real stamps, degraded; the truth is the stamp itself with its noise", *_table(result["real"]["results"])]
    return "\n".join(lines)


def _table(results: list[dict[str, Any]]) -> list[str]:
    names = {"psnr": "dB", "psnr_center": "dB", "flux": "%", "r50": "%", "ellipticity": "", "chi2": "", "false": "%", "lost": "%"}
    heads = " ".join(f"{name + (f' ({unit})' if unit else ''):>17}" for name, unit in names.items())
    lines = [f"band {'S/N':<10} {'method':<16} {'n':>4} {heads}"]
    for item in results:
        top = "" if item["snr_high"] is None else f"{item['snr_high']:.0f}"
        figures = " ".join(_cell(item["metrics"][name], 100.0 if unit == "%" else 1.0) for name, unit in names.items())
        lines.append(f"{item['band']:<4} {item['snr_low']:.0f} to {top:<5} {item['method']:<16} {item['galaxies']:>4} {figures}")
    covered = [item for item in results if "coverage_68" in item["metrics"]]
    for item in covered:
        parts = [f"{key.removeprefix('coverage')} {100 * value['value']:.1f} %" for key, value in item["metrics"].items() if "cover" in key]
        lines.append(f"{item['band']}, S/N from {item['snr_low']:.0f}: intervals hold {', '.join(parts)}")
    return lines


def _cell(value: dict[str, float], factor: float) -> str:
    half = (value["high"] - value["low"]) / 2
    return f"{factor * value['value']:>9.3g} ± {factor * half:<5.2g}"


def _tuned_text(found: dict[str, list[dict[str, Any]]]) -> str:
    return "\n".join(
        f"{name} bin {item['bin']}: {item['parameters']}, {item['psnr']:.2f} dB" for name, items in found.items() for item in items
    )
