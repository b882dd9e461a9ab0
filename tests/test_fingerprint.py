from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from galpipe.fingerprint import fingerprint, with_hole

VALUES = st.recursive(st.text() | st.integers() | st.booleans(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.dictionaries(st.text(), VALUES), st.text(), st.text(), st.text())
def test_a_hole_filled_is_the_whole_fingerprint(inputs: dict[str, object], hole: str, value: str, other: str) -> None:
    rest = {key: item for key, item in inputs.items() if key != hole}
    complete = with_hole("cut", rest, hole)
    assert complete(value) == fingerprint("cut", rest | {hole: value})
    assert (complete(other) == complete(value)) == (other == value)
