import pytest
from pydantic import ValidationError

from app.contracts.deployment import ShadowSample


def test_a_sample_that_does_not_fit_is_told_without_its_token_ids():
    with pytest.raises(ValidationError) as caught:
        ShadowSample.model_validate_json(
            '{"id": "r", "prompt": [48611, "x"], "output": [48612], "version": "identity"}'
        )
    assert "prompt" in str(caught.value)
    assert "4861" not in str(caught.value)
    assert "input_value" not in str(caught.value)
