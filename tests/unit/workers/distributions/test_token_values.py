"""The container of per-position values: joins, survives a file, refuses what does not fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.values import random_values
from workers.distributions.token_values import FIELDS, LAYOUT, Positions, TokenValues


def same(first: TokenValues, second: TokenValues) -> bool:
    return all(
        getattr(first, name).dtype == getattr(second, name).dtype
        and np.array_equal(getattr(first, name), getattr(second, name))
        for name in FIELDS
    )


def positions(count: int) -> Positions:
    index = np.arange(count)
    return Positions(document=index % 3, window=index % 5, position=index, context=index + 1, token_id=index * 7)


def test_parts_join_in_order_and_select_takes_them_apart() -> None:
    first, second = random_values(7, seed=1), random_values(4, seed=2)
    joined = TokenValues.concat([first, second])
    assert len(joined) == 11
    assert same(joined.select(np.arange(7)), first)
    assert same(joined.select(np.arange(11) >= 7), second)


def test_delta_p_is_the_difference_of_the_probabilities() -> None:
    values = replace(random_values(2), logp_reference=np.log([0.5, 0.25]), logp_candidate=np.log([0.125, 1.0]))
    np.testing.assert_allclose(values.delta_p, [-0.375, 0.75], atol=1e-15)


@pytest.mark.parametrize(
    ("field", "array"),
    [
        ("kl", np.zeros(4)),
        ("kl", np.zeros((3, 1))),
        ("kl", np.zeros(3, dtype=np.int32)),
        ("overlap5", np.zeros(3)),
        ("overlap5", np.zeros(3, dtype=np.bool_)),
        ("top1_agree", np.zeros(3, dtype=np.int8)),
    ],
)
def test_a_column_that_does_not_fit_is_refused(field: str, array: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=r"needed"):
        replace(random_values(3), **{field: array})


def test_a_file_gives_back_exactly_what_was_saved(tmp_path: Path) -> None:
    values = replace(random_values(9), js=np.full(9, np.nan, dtype=np.float32))
    values.save(tmp_path / "values.npz")
    loaded = TokenValues.load(tmp_path / "values.npz")
    assert np.isnan(loaded.js).all()
    assert same(replace(loaded, js=values.kl), replace(values, js=values.kl))
    assert [path.name for path in tmp_path.iterdir()] == ["values.npz"]


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "values.npz"
    with pytest.raises(FileNotFoundError):
        TokenValues.load(path)
    random_values(9).save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole.replace(LAYOUT[:8].encode("utf-32-le"), b"\0" * 32)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"values\.npz"):
            TokenValues.load(path)
    np.savez(path, kl=np.zeros(3))
    with pytest.raises(ValueError, match=r"values\.npz"):
        TokenValues.load(path)


def test_a_write_that_fails_leaves_nothing_and_spares_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "values.npz"
    random_values(3, seed=1).save(path)
    before = path.read_bytes()
    broken = random_values(3, seed=2)
    object.__setattr__(broken, "kl", Unwritable())
    with pytest.raises(OSError, match="no space"):
        broken.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["values.npz"]


class Unwritable:
    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:  # type: ignore[type-arg]
        raise OSError("no space")


def test_parquet_has_one_row_a_position_with_names_and_nulls(tmp_path: Path) -> None:
    values = random_values(6)
    finite = np.array([True, True, False, True, True, True])
    values = replace(values, kl=np.where(finite, values.kl, np.nan), finite=finite)
    values.to_parquet(tmp_path / "values.parquet", positions(6), ["a", "b", "c"], ["prose", "code", "prose"])
    table = pq.read_table(tmp_path / "values.parquet")
    assert table.column_names == ["document", "domain", "window", "position", "token_id", "delta_p", *FIELDS]
    assert table["document"].to_pylist() == ["a", "b", "c", "a", "b", "c"]
    assert table["domain"].to_pylist() == ["prose", "code", "prose", "prose", "code", "prose"]
    assert table["token_id"].to_pylist() == [0, 7, 14, 21, 28, 35]
    assert table["kl"].null_count == 1
    assert table["kl"].to_pylist()[2] is None
    np.testing.assert_array_equal(table["rank_token_candidate"].to_numpy(), values.rank_token_candidate)
    np.testing.assert_allclose(table["delta_p"].to_numpy(), values.delta_p, rtol=0)


def test_flags_are_boolean_columns_of_their_own_and_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    flag = np.array([True, False, True, False, False, True])
    named = ["a", "b", "c"], ["prose", "code", "prose"]
    random_values(6).to_parquet(tmp_path / "f.parquet", positions(6), *named, flags={"class_numbers": flag})
    table = pq.read_table(tmp_path / "f.parquet")
    assert table["class_numbers"].to_pylist() == flag.tolist()
    for wrong in ({"class_numbers": flag[:5]}, {"kl": flag}):
        with pytest.raises(ValueError, match="shape"):
            random_values(6).to_parquet(tmp_path / "g.parquet", positions(6), *named, flags=wrong)
    with pytest.raises(ValueError, match="5 positions for 6 values"):
        random_values(6).to_parquet(tmp_path / "g.parquet", positions(5), *named)
    assert not (tmp_path / "g.parquet").exists()
