import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings
from tests.support.profiles import VOCABULARY, WIDTH, Chain, Temperature, low_rank, record
from workers.calibration.profiles import ProfileStore
from workers.calibrators.protocol import RowContext


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(Settings(home=tmp_path))


def refused(act: object) -> ErrorCode:
    with pytest.raises(HemostatError) as caught:
        act()  # type: ignore[operator]
    return caught.value.code


def test_a_stored_profile_corrects_as_the_one_that_was_fitted(store: ProfileStore) -> None:
    fitted = Chain([low_rank(), Temperature(1.5)])
    profile = store.put(fitted, record())
    loaded = store.load(profile.version, device="cpu", hidden_size=WIDTH, vocabulary=VOCABULARY)
    hidden_TD = torch.randn(5, WIDTH)
    rows = RowContext(torch.arange(5), torch.arange(5))
    assert torch.equal(loaded.apply_hidden(hidden_TD, rows), fitted.apply_hidden(hidden_TD, rows))
    logits_TV = torch.randn(5, VOCABULARY)
    assert torch.equal(loaded.apply_logits(logits_TV, rows), fitted.apply_logits(logits_TV, rows))
    assert (profile.calibrator, profile.bytes) == ("lowrank+temperature", 4 * (2 * 2 * WIDTH + WIDTH))
    assert store.get(profile.version) == profile


def test_a_version_is_a_hash_of_the_calibrator_and_of_how_it_was_fitted(store: ProfileStore) -> None:
    first = store.put(low_rank(), record())
    assert store.put(low_rank(), record()) == first
    assert store.put(low_rank(), record(job="diag_other")) == first, "who asked for it does not matter"
    served = store.put(low_rank(), record(deployment="bot"))
    assert (served.version, served.deployment) == (first.version, "bot")
    assert store.put(low_rank(), record()) == store.get(first.version) == served, "unless it is for a deployment"
    others = [store.put(low_rank(seed=1), record()), store.put(low_rank(), record(seed=1))]
    assert len({profile.version for profile in [first, *others]}) == 3
    assert {profile.version for profile in store.list()} == {profile.version for profile in [first, *others]}


def test_many_at_once_store_it_once(store: ProfileStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: store.put(low_rank(), record()), range(8)))
    assert len({profile.version for profile in made}) == len({profile.created_at for profile in made}) == 1
    assert [entry.name for entry in store.root.iterdir()] == [made[0].version]


def test_what_cannot_be_stored_leaves_nothing(store: ProfileStore) -> None:
    spoiled = low_rank()
    spoiled.shift_D[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        store.put(spoiled, record())
    with pytest.raises(ValueError, match="size 8"):
        store.put(low_rank(), record(hidden_size=16))
    assert list(store.root.iterdir()) == []


def test_a_profile_of_another_model_is_refused(store: ProfileStore) -> None:
    version = store.put(low_rank(), record()).version
    assert refused(lambda: store.load(version, device="cpu", hidden_size=WIDTH + 1)) is ErrorCode.PROFILE_MISMATCH


def test_a_damaged_profile_is_refused_and_left_out_of_the_list(store: ProfileStore) -> None:
    version = store.put(low_rank(), record()).version
    other = store.put(low_rank(seed=1), record()).version
    tensors = store.folder(version) / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    assert refused(lambda: store.load(version, device="cpu")) is ErrorCode.PROFILE_CORRUPT
    (store.folder(version) / "profile.json").write_text("{")
    assert refused(lambda: store.get(version)) is ErrorCode.PROFILE_CORRUPT
    assert [profile.version for profile in store.list()] == [other]


def test_a_description_that_was_copied_from_another_profile_is_refused(store: ProfileStore) -> None:
    one, other = (store.put(low_rank(seed), record()).version for seed in (0, 1))
    text = (store.folder(one) / "profile.json").read_text()
    (store.folder(other) / "profile.json").write_text(text)
    assert json.loads(text)["version"] == one
    assert refused(lambda: store.get(other)) is ErrorCode.PROFILE_CORRUPT
