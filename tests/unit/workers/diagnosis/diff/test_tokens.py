"""Per-token files: what is read of them, what is refused, and which positions several share."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from tests.support.token_files import positions, values, write_job
from workers.diagnosis.diff.tokens import read, same_positions, shared


def written(tmp_path, name="a", kl=None, **more):
    kl = np.linspace(0, 1, 1200) if kl is None else kl
    return read(write_job(tmp_path / name, values(kl, **more)) / "tokens.parquet", name=name)


def test_what_was_written_is_read(tmp_path):
    kl = np.random.default_rng(0).exponential(0.3, 1200)
    found = written(tmp_path, kl=kl)
    assert found.measures["kl"] == pytest.approx(kl)
    assert found.measures["log_perplexity"] == pytest.approx(3.0 + kl)
    assert found.measures["top1_agreement"] == pytest.approx((kl < 0.3).astype(float))
    assert found.document[:41].tolist() == ["d0"] * 40 + ["d1"]
    assert found.token_id.tolist() == positions().token_id.tolist()
    assert set(found.domain.tolist()) == {"prose", "code"}


def test_columns_of_token_classes_are_read(tmp_path):
    numbers = np.arange(1200) % 3 == 0
    file = write_job(tmp_path / "new", values(np.zeros(1200)), classes={"numbers": numbers}) / "tokens.parquet"
    found = read(file, name="new")
    assert found.classes["numbers"].tolist() == numbers.tolist()
    assert found.select(np.array([3, 4])).classes["numbers"].tolist() == [True, False]
    assert not found.classes["rare"].any()


def test_what_is_not_finite_is_not_a_number(tmp_path):
    kl = np.full(1200, 0.2)
    kl[5] = np.nan
    finite = np.ones(1200, dtype=bool)
    finite[5] = finite[9] = False
    found = written(tmp_path, kl=kl, finite=finite)
    assert np.flatnonzero(~found.finite).tolist() == [5, 9]


def test_shared_positions_are_found_by_document_place_and_token(tmp_path):
    one = written(tmp_path)
    other = one.select(np.arange(1199, 99, -1))  # another order, a hundred fewer
    assert not same_positions(one, other)
    left, right = shared([one, other])
    assert len(left) == 1100
    assert left.where() == right.where()
    assert left.measures["kl"] == pytest.approx(right.measures["kl"])


@pytest.mark.parametrize("late", [False, True])
def test_a_file_that_is_missing_or_deleted_while_it_is_read_is_told(tmp_path, monkeypatch, late):
    file, whole = tmp_path / "tokens.parquet", pq.read_table
    if late:
        file = write_job(tmp_path / "a", values(np.zeros(1200))) / "tokens.parquet"
        monkeypatch.setattr(pq, "read_table", lambda path, **asked: path.unlink() or whole(path, **asked))
    with pytest.raises(HemostatError, match=r"job-7 has no tokens\.parquet") as caught:
        read(file, name="job-7")
    assert caught.value.code == ErrorCode.ARTIFACT_NOT_FOUND


def test_a_damaged_file_is_refused(tmp_path):
    file = tmp_path / "tokens.parquet"
    file.write_bytes(b"PAR1 no")
    with pytest.raises(HemostatError, match="does not hold values by token"):
        read(file, name="job-7")


def test_a_file_of_another_layout_is_refused(tmp_path):
    file = write_job(tmp_path / "a", values(np.zeros(1200))) / "tokens.parquet"
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({"layout": "other/9"}), file)
    with pytest.raises(HemostatError, match=r"has layout 'other/9'"):
        read(file, name="job-7")
    pq.write_table(table.drop_columns(["kl", "class_rare"]), file)
    with pytest.raises(HemostatError, match=r"of job-7 .* lacks kl, class_rare") as refused:
        read(file, name="job-7")
    assert refused.value.code == ErrorCode.INVALID_REQUEST
    assert "measure it again" in str(refused.value.hint)
