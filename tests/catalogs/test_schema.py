import pyarrow as pa
import pytest

from catalogs.schema import assemble, base_columns, tolerances, unpublished_survey_columns
from galpipe.columns import Column
from galpipe.errors import ConfigurationError
from tests.catalogs.sky import HEADS


def test_every_survey_column_is_published() -> None:
    assert unpublished_survey_columns() == []


def test_every_column_says_what_it_is() -> None:
    silent = [column.name for column in base_columns() if not column.description]
    assert silent == []


def test_units_and_descriptions_are_in_the_arrow_fields() -> None:
    schema = assemble(HEADS)
    assert schema.field("ra").metadata[b"unit"] == b"deg"
    assert schema.field("flux_g").metadata[b"unit"] == b"nanomaggy"
    assert schema.field("mag_r_dered").metadata[b"description"].startswith(b"AB magnitude in r corrected")
    assert schema.field("z_mock").metadata[b"learned"] == b"mock only"
    assert schema.names[-len(HEADS) :] == [column.name for column in HEADS]


def test_a_head_may_not_take_a_base_column() -> None:
    with pytest.raises(ConfigurationError, match=r"\['flux_g'\] declared twice"):
        assemble([Column("flux_g", pa.float32())])


def test_tolerances_are_exact_for_measured_columns() -> None:
    allowed = tolerances(HEADS)
    assert allowed["flux_g"] == 0.0
    assert allowed["mag_model_r"] == 1e-3
