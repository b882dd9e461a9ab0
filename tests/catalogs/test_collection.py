from pathlib import Path

import pytest

from catalogs.collection import Binding, bind, read_binding
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout

MINI = Binding({"cut": {"size": 152, "bands": ("g", "r", "z")}}, "mini/1", "abc")


def test_a_name_keeps_its_binding(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert read_binding(layout, "main") is None
    bind(layout, "main", MINI)
    bind(layout, "main", MINI)
    bound = read_binding(layout, "main")
    assert bound is not None
    assert bound.as_dict() == MINI.as_dict()


def test_another_model_is_refused_until_switched_on_purpose(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    bind(layout, "main", MINI)
    other = Binding({"cut": {"size": 200, "bands": ["g", "r", "z"]}}, "mini/1", "def")
    with pytest.raises(ConfigurationError, match=r"'main' with model_hash = 'abc', settings.cut.size = 152, got 'def', 200"):
        bind(layout, "main", other)
    assert bind(layout, "another", other).exists()
    bind(layout, "main", other, switch=True)
    bound = read_binding(layout, "main")
    assert bound is not None
    assert bound.model_hash == "def"


def test_a_damaged_binding_is_bad_data(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    bind(layout, "main", MINI).write_text("{")
    with pytest.raises(BadData, match=r"a readable collection\.json"):
        bind(layout, "main", MINI)
