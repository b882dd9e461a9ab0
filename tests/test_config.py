"""Settings refuse what cannot be meant, by name, before anything runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from galpipe.config import CutSettings, FetchSettings, SelectionSettings, Settings, load_settings, settings_from
from galpipe.errors import ConfigurationError


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("fetch", "bands", "grz"),
        ("fetch", "bands", ["g", 1]),
        ("fetch", "bands", ["g/r"]),
        ("fetch", "bands", ["g", "g"]),
        ("fetch", "credentials", "mine"),
        ("fetch", "products", []),
        ("fetch", "products", ["picture"]),
        ("fetch", "connections", "4"),
        ("fetch", "connections", 0),
        ("fetch", "connections", True),
        ("fetch", "connections", 2.5),
        ("fetch", "retries", -1),
        ("fetch", "timeout", "60"),
        ("fetch", "timeout", float("nan")),
        ("fetch", "timeout", 0),
        ("fetch", "back_off", -1.0),
        ("cut", "bands", "grz"),
        ("cut", "bands", []),
        ("cut", "bands", ["g", "g"]),
        ("cut", "bands", ["u"]),
        ("cut", "size", 0),
        ("cut", "size", 152.0),
        ("cut", "pixscale", 0),
        ("cut", "pixscale", float("inf")),
        ("selection", "name", 20),
        ("selection", "min_valid_frac", 1.5),
        ("infer", "batch", 0),
        ("infer", "threads", 0),
        ("infer", "model", ""),
        ("cluster", "workers", "two"),
        ("cluster", "workers", -1),
        ("cluster", "memory", "3"),
        ("cluster", "memory", "much"),
        ("cluster", "memory", 3),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(table: str, key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"expected {table}\.{key} "):
        settings_from({table: {key: value}})


def test_the_message_says_what_came() -> None:
    with pytest.raises(ConfigurationError, match=r"expected cluster\.workers to be a whole number, got 'two'"):
        settings_from({"cluster": {"workers": "two"}})
    with pytest.raises(ConfigurationError, match=r"expected fetch\.connections from 1 to 64, got 0"):
        FetchSettings(connections=0)


def test_unknown_tables_and_keys_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'cutting'"):
        settings_from({"cutting": {}})
    with pytest.raises(ConfigurationError, match="'cut'"):
        settings_from({"cut": 3})
    with pytest.raises(ConfigurationError, match=r"keys .* in .cut., got .'sizes'"):
        settings_from({"cut": {"sizes": 152}})


def test_defaults_and_plain_values_survive_the_way_to_json_and_back() -> None:
    assert settings_from(Settings().as_dict()) == Settings()
    assert load_settings(None) == Settings()


def test_a_whole_number_for_a_number_is_the_same_setting() -> None:
    assert FetchSettings(timeout=60) == FetchSettings(timeout=60.0)
    assert repr(CutSettings(pixscale=1).pixscale) == "1.0"


@pytest.mark.parametrize("name", ["galaxies-z20", "galaxies-z21", "galaxies-z19.5"])
def test_known_selections(name: str) -> None:
    assert SelectionSettings(name).identity() == {"name": name, "min_valid_frac": 0.3}


def test_an_unknown_selection_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"selection\.name galaxies-z20, .*, got 'bogus'"):
        SelectionSettings("bogus")
    with pytest.raises(ConfigurationError, match=r"expected a readable list of ids"):
        SelectionSettings("ids:/nonexistent")
    wrong = tmp_path / "ids.txt"
    wrong.write_text("7\nseven\n")
    with pytest.raises(ConfigurationError, match=r"ids\.txt: expected an id, .* got 'seven' in line 2"):
        SelectionSettings(f"ids:{wrong}")


def test_a_list_is_known_by_its_ids_not_by_its_place(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("9010 455939 2\n17\n")
    second.write_text(f"# the same, otherwise written\n17\n\n{(9010 << 42) | (455939 << 22) | 2}\n17\n")
    told = SelectionSettings(f"ids:{first}").identity()
    assert re.fullmatch("[0-9a-f]{64}", told["ids_sha256"])
    assert told == SelectionSettings(f"ids:{second}").identity()


def test_an_edited_list_is_another_selection(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("17\n")
    settings = SelectionSettings(f"ids:{path}")
    before = settings.identity()
    path.write_text("17\n18\n")
    assert settings.identity() != before
    path.unlink()
    with pytest.raises(ConfigurationError, match="expected a readable list of ids"):
        settings.identity()


def test_a_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[cut]\nbands = ["g", "z"]\n[cluster]\nworkers = 2\n')
    settings = load_settings(path)
    assert (settings.cut.bands, settings.cluster.workers) == (("g", "z"), 2)
    path.write_text("[cut\n")
    with pytest.raises(ConfigurationError, match="a readable TOML configuration"):
        load_settings(path)
