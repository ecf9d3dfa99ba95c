from pathlib import Path

import pytest

from app.contracts.errors import HemostatError
from app.deployments.shares import check_shares
from app.settings import Settings


def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, share_serving=0.3, share_shadow=0.1, share_diagnosis=0.3)


def test_what_adds_up_to_the_whole_device_fits(tmp_path: Path) -> None:
    check_shares(settings(tmp_path), [("a", 2)])
    check_shares(settings(tmp_path), [])


def test_one_replica_more_does_not_and_the_sum_is_said(tmp_path: Path) -> None:
    for served in ([("a", 3)], [("a", 1), ("b", 2)], [("a", 1), ("b", 1), ("c", 1)]):
        with pytest.raises(HemostatError) as caught:
            check_shares(settings(tmp_path), served, pointer="/replicas")
        total = 0.3 + 0.3 * sum(count for _, count in served) + 0.1 * len(served)
        assert f"add up to {total:.2f}" in caught.value.detail
        assert caught.value.pointer == "/replicas"
