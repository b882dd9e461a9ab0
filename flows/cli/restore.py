"""The verb that restores images: restore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.cli.common import finish, json_option, root_option, verb
from flows.progress import ProgressBoard


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the restored FITS files.")
@click.option("--model", default="shipped", show_default=True, help="Model by name, hash or folder.")
@root_option
@json_option
@verb
def restore(files: tuple[Path, ...], out: Path, model: str, root: Path, as_json: bool) -> None:
    """Restored images of stamps of any known kind: denoised, sharpened, gaps filled, with an uncertainty. For the eye only.

    Each becomes OUT/<name>-restored.fits: the image, its 68 % half widths, and which pixels were filled; the header states the PSF that
    the image is restored to in each band.
    """
    from galpipe.commit import write_bytes
    from galpipe.errors import BadData
    from galpipe.lvm.predict import Predictor
    from galpipe.lvm.registry import model_folder
    from galpipe.lvm.restored_file import restored_fits
    from galpipe.stamps.external import read_stamps

    predictor = Predictor.load(model_folder(model, root / "models"))
    written: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    taken: set[str] = set()
    with ProgressBoard({"files": len(files)}) as board:
        for number, path in enumerate(files, 1):
            for item in read_stamps([path]):
                if isinstance(item, BadData):
                    failures.append({"unit": "", "file": item.file, "kind": item.kind, "reason": str(item)})
                    continue
                for row, content in enumerate(restored_fits(predictor, item)):
                    source = item.sources["source_id"][row].as_py()
                    alone = len(item) == 1 and f"{path.stem}-restored.fits" not in taken
                    name = f"{path.stem}-restored.fits" if alone else f"{path.stem}-{source:016x}-restored.fits"
                    taken.add(name)
                    write_bytes(out / name, content)
                    written.append({"file": path, "source_id": source, "restored": out / name})
            board.update("files", number, len(files))
    result = {
        "status": "failed" if failures else "ok",
        "counts": {"restored": len(written)},
        "failures": failures,
        "model_hash": predictor.model_hash,
        "images": written,
    }
    lines = [*(str(item["restored"]) for item in written), *(f"FAILED   {item['file']}: {item['reason']}" for item in failures)]
    finish(result, as_json, "\n".join(lines))
