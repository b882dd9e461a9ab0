"""What one catalog column is: the type that base columns and every head declare theirs with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Learned = Literal["", "real votes", "real redshifts", "mapped", "mock only", "user labels"]


@dataclass(frozen=True)
class Column:
    """One column of the catalog.

    Parameters
    ----------
    name : str
    type : pyarrow.DataType
    unit : str
        VOUnit text, empty for a dimensionless value.
    description : str
        One sentence.
    tolerance : float
        Largest difference two machines may show for the same inputs (absolute; 0 = exact).
    learned : str
        For model columns: where the answer was learned. Empty for measured or published columns.
    """

    name: str
    type: pa.DataType
    unit: str = ""
    description: str = ""
    tolerance: float = 0.0
    learned: Learned = ""

    def field(self) -> pa.Field:
        """The Arrow field, with unit, description and tolerance in its metadata."""
        tolerance = f"{self.tolerance:g}" if self.tolerance else ""
        texts = {"unit": self.unit, "description": self.description, "learned": self.learned, "tolerance": tolerance}
        return pa.field(self.name, self.type, metadata={k: v for k, v in texts.items() if v})
