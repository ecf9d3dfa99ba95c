"""What a surface job ends with where there is nothing to report."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from workers.diagnosis.surface.report import _check_made


def table(*refused):
    """The unmodified model, and changed settings that were refused for these reasons; None: made."""
    cells = [SimpleNamespace(recipe=()), *(SimpleNamespace(recipe=("step",)) for _ in refused)]
    records = [SimpleNamespace(refused=None), *(SimpleNamespace(refused=why) for why in refused)]
    return cast("Any", SimpleNamespace(cells=cells, records=records))


def test_where_no_setting_can_be_made_the_reason_of_the_first_is_told():
    with pytest.raises(HemostatError, match="the model takes none of the settings: rank 600 is too large") as refused:
        _check_made(table("rank 600 is too large", "rank 700 is too large"))
    assert refused.value.code is ErrorCode.RECIPE_NOT_APPLICABLE
    assert refused.value.pointer == "/candidate/recipe"
    _check_made(table("rank 600 is too large", None))
