"""Shapes: a usage made up for a shape has that shape."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from token_callbacks.records import Operation, Usage
from token_callbacks.reports.parts import shape_of, typical

from .records import usages


@given(usage=usages, operation=st.sampled_from(Operation), band_start=st.sampled_from([0, 4, 200_000]))
def test_a_typical_usage_has_the_shape_it_is_made_for(usage: Usage, operation: Operation, band_start: int) -> None:
    """There and back again, for every usage a provider could tell, in every band."""
    shape = shape_of(usage, operation)

    assert shape == shape_of(typical(shape, operation, band_start), operation)
