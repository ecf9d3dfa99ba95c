"""What of a deployment is refused when it is asked for."""

import pytest

from app.contracts.deployment import DeploymentRequest
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.service import preflight
from app.settings import Settings

SELF = {"source": "self", "tokens": 256}


async def test_text_that_the_reference_would_have_to_write_is_refused(tiny, tmp_path):
    (tmp_path / "models.toml").write_text(f'[models.tiny]\npath = "{tiny()}"\n')
    settings = Settings(home=tmp_path)

    def asked(**changes):
        recipe = [
            {"type": "quantize.rtn", "bits": 4, "group_size": 32},
            {"type": "norm.tweak", "calibration_window": 64} | changes,
        ]
        return DeploymentRequest.model_validate(
            {"name": "served", "model": {"model": "tiny", "recipe": recipe}, "reference": {"model": "tiny"}}
        )

    await preflight(asked(), settings, "")
    with pytest.raises(HemostatError) as caught:
        await preflight(asked(calibration=SELF), settings, "")
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/model/recipe/1/calibration")
    assert "shipped" in caught.value.hint
