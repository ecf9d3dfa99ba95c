"""What of a deployment is refused when it is asked for."""

import pytest

from app.contracts.deployment import DeploymentRequest
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.service import preflight
from app.settings import Settings

SPLITS = [
    ("", {"tensor_parallel_size": 2}, True),
    ("pipeline_parallel_size = 3", {}, True),
    ("tensor_parallel_size = 1", {"tensor_parallel_size": 2}, False),
]
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


@pytest.mark.parametrize(("size", "sizes", "split"), SPLITS)
async def test_verified_decoding_of_a_split_model_is_refused_when_it_is_asked_for(tiny, tmp_path, size, sizes, split):
    """The reference's own size counts, else the settings'."""
    (tmp_path / "models.toml").write_text(f'[models.tiny]\npath = "{tiny()}"\n{size}\n')
    settings = Settings(home=tmp_path, **sizes)
    model = {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 32}]}
    asked = {"name": "served", "model": model, "reference": {"model": "tiny"}}
    await preflight(DeploymentRequest.model_validate(asked), settings, "")
    verified = DeploymentRequest.model_validate(asked | {"verify": True})
    if not split:
        await preflight(verified, settings, "")
        return
    with pytest.raises(HemostatError, match="tiny is split") as caught:
        await preflight(verified, settings, "")
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.INVALID_REQUEST, "/verify")
