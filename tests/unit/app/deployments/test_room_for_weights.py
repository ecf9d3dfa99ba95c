"""A share of a GPU that does not hold the weights is refused before anything is placed; devices are not there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.contracts.deployment import Deployment, DeploymentRequest
from app.contracts.errors import ErrorCode
from app.deployments.placement import Plan, Spot
from app.deployments.record import read_deployment, request_fields
from app.deployments.report import Device, HostReport
from app.deployments.room_for_weights import too_small
from app.models.checkpoint import inspect
from app.settings import Settings

Tiny = Callable[..., Path]
SHARE = 0.125


@pytest.fixture
def settings(tiny: Tiny, tmp_path: Path) -> Settings:
    (tmp_path / "models.toml").write_text(f'[models.tiny]\npath = "{tiny()}"\n')
    return Settings(home=tmp_path, share_verify=SHARE)


def asked(**changes: object) -> Deployment:
    rtn = [{"type": "quantize.rtn", "bits": 4, "group_size": 64}]
    body = {"name": "tiny-rtn4", "model": {"model": "tiny", "recipe": rtn}, "reference": {"model": "tiny"}} | changes
    fields = request_fields("dep_" + "0" * 26, DeploymentRequest.model_validate(body))
    return read_deployment(fields | {"created_at": "0", "updated_at": "0"})


def plan(size: int, *devices: str, places: tuple[str, ...] = ("serve-0", "shadow", "verify")) -> Plan:
    host = HostReport(agent="a", host="gpu-1", devices=[Device(id=one, bytes=size) for one in devices])
    return Plan([host], {}, spots={"tiny-rtn4": dict.fromkeys(places, Spot("a", "gpu-1", devices))})


def weights(tiny: Tiny) -> int:
    return 2 * inspect(tiny()).parameters


def test_verified_decoding_needs_both_models_and_a_shadow_is_not_refused(tiny: Tiny, settings: Settings) -> None:
    enough = round(weights(tiny) / SHARE)
    plain = {"model": {"model": "tiny"}}
    for models, size in (({}, enough), (plain, 2 * enough)):  # a recipe decides the weights of its candidate
        assert too_small(settings, plan(size, "0"), asked(**models)) is None
        assert too_small(settings, plan(size - 8, "0"), asked(**models)) is not None
    assert too_small(settings, plan(8, "0", places=("serve-0", "shadow")), asked(**plain)) is None


def test_a_split_model_needs_its_part_on_each_device(tiny: Tiny, settings: Settings) -> None:
    half = round(weights(tiny) / SHARE / 2)
    assert too_small(settings, plan(half, "0", "1"), asked()) is None
    assert too_small(settings, plan(half - 8, "0", "1"), asked()) is not None


def test_the_refusal_has_the_bytes_and_a_share_that_is_enough(tiny: Tiny, settings: Settings) -> None:
    error = too_small(settings, plan(4 * weights(tiny), "3"), asked())
    assert error is not None
    assert error.code is ErrorCode.DEPLOYMENT_CONFLICT
    assert "HEMOSTAT_SHARE_VERIFY=0.125 of device 3 of gpu-1" in error.detail
    assert "more than 0.25 " in error.hint
    larger = too_small(settings, plan(weights(tiny) // 2, "3"), asked())
    assert larger is not None
    assert "SHARE" not in larger.hint


def test_what_is_not_known_or_no_gpu_is_not_refused(settings: Settings) -> None:
    unknown = {"reference": {"model": "nobody"}}
    assert too_small(settings, plan(8, "cpu"), asked()) is None
    assert too_small(settings, plan(0, "0"), asked()) is None
    assert too_small(settings, plan(8, "0"), asked(**unknown)) is None
    assert too_small(settings, Plan([], {}), asked()) is None
