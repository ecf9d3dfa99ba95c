"""What a reader is warned of."""

import pytest

from tests.support.surface_reports import surface_request, surface_table
from workers.diagnosis.surface.words import warnings


@pytest.mark.parametrize(("documents", "known"), [(2, False), (5, False), (6, True), (12, True)])
def test_that_limits_have_no_interval_is_told_where_documents_are_too_few(documents, known):
    table = surface_table(surface_request(sparsities=(0.3, 0.6), bits=(6, 4)), documents=documents)
    assert {limit.ci is not None for limit in table.contour().limits} == {known}
    told = [warning for warning in warnings(table) if warning.startswith("Too few documents for an interval")]
    assert len(told) == (not known)
