"""Imports point downward only: flows, tasks, catalogs, galpipe."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LAYERS = ("galpipe", "catalogs", "tasks", "flows")
FORBIDDEN_OUTSIDE = {"prefect": ("tasks", "flows"), "dask": ("tasks", "flows"), "distributed": ("tasks", "flows")}


def modules() -> list[Path]:
    return [path for layer in LAYERS for path in sorted((REPOSITORY / layer).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_imports_point_down(path: Path) -> None:
    layer = path.relative_to(REPOSITORY).parts[0]
    above = set(LAYERS[LAYERS.index(layer) + 1 :]) | {"tests", "deploy"}
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & above, f"{path}: {layer} must not import {sorted(tops & above)}"
    for library, allowed in FORBIDDEN_OUTSIDE.items():
        assert library not in tops or layer in allowed, f"{path}: {library} lives in {allowed} only"


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_no_pickle(path: Path) -> None:
    assert not {"pickle", "cloudpickle", "dill", "joblib"} & {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("layer", LAYERS)
def test_tree_is_present(layer: str) -> None:
    assert list((REPOSITORY / layer).glob("*.py")), f"{layer}/ holds no module"
