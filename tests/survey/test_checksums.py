from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galpipe.survey.checksums import parse_checksums

SUM = "0123456789abcdef" * 4
NAME = "legacysurvey-1126p222-image-g.fits.fz"


@pytest.mark.parametrize(
    "text",
    [
        f"{SUM}  {NAME}\n",
        f"{SUM} *{NAME}\n",
        f"{SUM} *coadd/112/1126p222/{NAME}\n",
        f"{SUM}  ./{NAME}\n",
        f"{SUM}\t{NAME}",
        f"{SUM.upper()}  {NAME}\n",
        f"{SUM}  {NAME}\r\n",
        f"\ufeff# sums of the coadds\r\n\r\n{SUM} *{NAME}\r\n",
        f"# {SUM}\n{SUM}  {NAME}\n; the end\n",
        f"SHA256 ({NAME}) = {SUM}\n",
        f"sha256(coadd/112/{NAME})= {SUM.upper()}\n",
        f"\\{SUM} *coadd\\112\\{NAME}\r\n",
        f"   {SUM}  {NAME}   \n",
    ],
)
def test_every_form_of_line(text: str) -> None:
    assert parse_checksums(text) == {NAME: SUM}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html><body>Not here</body></html>",
        f"# {SUM}  {NAME}\n",
        f"{SUM[:-1]}  {NAME}\n",
        f"{SUM}0  {NAME}\n",
        f"{SUM}\n",
        f"{NAME}  {SUM}\n",
    ],
)
def test_what_is_no_sum_is_passed_over(text: str) -> None:
    assert parse_checksums(text) == {}


NAMES = st.text("Aa1._+-", min_size=1, max_size=12).filter(lambda name: name not in (".", ".."))


@settings(max_examples=40)
@given(
    st.dictionaries(NAMES, st.binary(min_size=32, max_size=32), max_size=5),
    st.sampled_from(["  ", " *"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_lists_round_trip(sums: dict[str, bytes], between: str, end: str, capitals: bool) -> None:
    lines = [(value.hex().upper() if capitals else value.hex()) + between + name + end for name, value in sums.items()]
    assert parse_checksums("".join(lines)) == {name: value.hex() for name, value in sums.items()}
