from __future__ import annotations

from astropy.io import fits

from galpipe.survey.bits import FITBITS, MASKBITS, allmask_bit, bit_names, mask_value, satur_bit


def test_the_header_decides() -> None:
    header = fits.Header([("MBIT_0", "NPRIMARY"), ("MBIT_7", "SATUR_I "), ("MB_X", 3)])
    names = bit_names(header)
    assert names == {"NPRIMARY": 0, "SATUR_I": 7}
    assert satur_bit("i", names) == 7
    assert satur_bit("g", names) is None


def test_old_card_names() -> None:
    assert bit_names(fits.Header([("MBITN12", "GALAXY")])) == {"GALAXY": 12}


def test_the_published_tables_are_the_fallback() -> None:
    assert bit_names(fits.Header()) == MASKBITS
    assert bit_names(fits.Header([("FBIT_3", "HIT")]), "FBIT") == {"HIT": 3}
    assert bit_names(fits.Header(), "FBIT") == FITBITS
    assert [satur_bit(b) for b in "griz"] == [2, 3, 14, 4]
    assert [allmask_bit(b) for b in "griz"] == [5, 6, 15, 7]


def test_bits_that_a_release_does_not_have_add_nothing() -> None:
    dr9 = {name: bit for name, bit in MASKBITS.items() if bit <= 13}
    assert mask_value(dr9, ("BRIGHT", "GALAXY", "SATUR_I")) == 2 + 4096
