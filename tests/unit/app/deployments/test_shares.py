import pytest

from app.contracts.errors import HemostatError
from app.deployments.shares import Wanted, check_shares
from app.settings import Settings


def settings(tmp_path):
    return Settings(home=tmp_path, share_serving=0.3, share_shadow=0.1, share_diagnosis=0.3)


def test_what_adds_up_to_the_whole_device_fits(tmp_path):
    check_shares(settings(tmp_path), [Wanted("a", 2)])
    check_shares(settings(tmp_path), [])


def test_one_replica_more_does_not_and_the_sum_is_said(tmp_path):
    for served in (
        [Wanted("a", 3)],
        [Wanted("a", 1), Wanted("b", 2)],
        [Wanted("a", 1), Wanted("b", 1), Wanted("c", 1)],
    ):
        with pytest.raises(HemostatError) as caught:
            check_shares(settings(tmp_path), served, pointer="/replicas")
        total = 0.3 + 0.3 * sum(one.replicas for one in served) + 0.1 * len(served)
        assert f"add up to {total:.2f}" in caught.value.detail
        assert caught.value.pointer == "/replicas"


def test_a_verifying_process_takes_its_share(tmp_path):
    less = settings(tmp_path).model_copy(update={"share_verify": 0.3})
    check_shares(less, [Wanted("a", 1, verify=True)])
    with pytest.raises(HemostatError) as caught:
        check_shares(less, [Wanted("a", 2, verify=True)])
    assert "add up to 1.30: 2 replicas at 0.3, 1 shadow at 0.1, 1 verify at 0.3 and" in caught.value.detail
    assert "HEMOSTAT_SHARE_VERIFY" in caught.value.hint
