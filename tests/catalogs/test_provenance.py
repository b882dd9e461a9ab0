from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogs.provenance import canonical, describe, provenance_id, record, record_path, record_run
from galpipe.errors import BadData, ConfigurationError
from galpipe.layout import Layout

JSON = st.dictionaries(
    st.text(max_size=5), st.recursive(st.integers() | st.text(max_size=5) | st.booleans(), lambda x: st.lists(x, max_size=3)), max_size=4
)


@given(JSON)
def test_id_hashes_content_not_order(inputs: dict[str, object]) -> None:
    turned = dict(reversed(list(inputs.items())))
    assert provenance_id(turned) == provenance_id(inputs)
    assert 0 <= provenance_id(inputs) < 1 << 63


@given(JSON, JSON)
def test_other_inputs_have_another_id(one: dict[str, object], two: dict[str, object]) -> None:
    assert (provenance_id(one) == provenance_id(two)) == (canonical(one) == canonical(two))


def test_id_is_the_same_on_every_machine() -> None:
    # sha256sum of the canonical text, first 16 digits, without the sign bit
    assert provenance_id({"model": "mini", "files": ["a", "b"]}) == 2649510236451094247


def test_inputs_without_a_json_form_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="inputs with a JSON form"):
        provenance_id({"depth": float("nan")})


def test_record_once_describe_with_runs(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    identifier = record(layout, "main", {"model": "mini"})
    other = record(layout, "main", {"model": "maxi"})
    before = record_path(layout, "main", identifier).stat().st_mtime_ns
    assert record(layout, "main", {"model": "mini"}) == identifier
    assert record_path(layout, "main", identifier).stat().st_mtime_ns == before
    record_run(layout, "main", "run-1", [identifier, other, identifier])
    record_run(layout, "main", "run-2", [identifier])
    assert describe(layout, "main", identifier) == {"id": identifier, "inputs": {"model": "mini"}, "runs": ["run-1", "run-2"]}
    assert describe(layout, "main", other)["runs"] == ["run-1"]


def test_unknown_and_altered_records(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(ConfigurationError, match="a provenance id of catalog 'main', got 5"):
        describe(layout, "main", 5)
    identifier = record(layout, "main", {"model": "mini"})
    record_path(layout, "main", identifier).write_text('{"model":"other"}')
    with pytest.raises(BadData, match=f"inputs that hash to {identifier}"):
        describe(layout, "main", identifier)
    with pytest.raises(BadData, match="the inputs recorded under this provenance id"):
        record(layout, "main", {"model": "mini"})
