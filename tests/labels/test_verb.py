"""``galpipe labels show``: what is in a set, what cannot be used and why, what is there twice."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from flows.cli.labels import labels
from tests.labels.makers import again, jpeg, parquet


def test_show_tells_labels_routes_and_repeats(tmp_path: Path) -> None:
    images = [jpeg(1), jpeg(2), None]
    one = parquet(tmp_path / "legacy_galaxy10.parquet", images, id=["a", "b", "c"], label=["x", "y", "x"], bar=[0.5, -1.0, 1.0])
    other = parquet(tmp_path / "mine.parquet", [again(images[1], 100, 80), jpeg(3)], id=["J000411.19+020924.0", "e"])
    ended = CliRunner().invoke(labels, ["show", str(one), str(other), "--json"])
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert told["counts"] == {"rows": 5, "dropped": 1, "galaxies": 3, "repeated": 1}
    assert told["shared"] == [{"one": str(one), "other": str(other), "galaxies": 1}]
    assert [(item["unit"], item["file"]) for item in told["failures"]] == [("c", str(one))]
    first, second = told["sets"]
    assert (first["route"], first["stretch"], first["stretch_assumed"], first["photometric"]) == ("JPEG route", "dr2_rgb", False, True)
    assert (second["stretch_assumed"], second["with_position"]) == (True, 1)
    assert first["columns"][1] == {"name": "bar", "kind": "number", "known": 2, "undetermined": 1, "counts": {}}
    text = CliRunner().invoke(labels, ["show", str(one), str(other)]).stdout
    for part in ("JPEG route, drawn as dr2_rgb,", "(assumed)", "x 2, y 1", "1 undetermined", "without a stamp: c:", "share 1 galaxies"):
        assert part in text


def test_show_refuses_what_is_no_set(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    ended = CliRunner().invoke(labels, ["show", str(tmp_path / "a.csv"), "--json"])
    assert ended.exit_code == 2 and json.loads(ended.stdout)["failures"][0]["kind"] == "configuration"
