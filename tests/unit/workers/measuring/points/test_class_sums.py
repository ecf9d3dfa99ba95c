"""Sums of a point by window and token class."""

import json

import numpy as np
import pytest

from app.contracts.request import Thresholds
from tests.support.sweep_reports import DOCUMENTS, class_masks, positions, values
from workers.distributions.token_values import Positions
from workers.measuring.points.class_sums import class_sums
from workers.measuring.points.record import PointRecord, record_of


def two_windows() -> Positions:
    """Each document in two windows."""
    where = positions()
    late = where.position >= 30
    return Positions(where.document, 2 * where.document + late, where.position, where.context, where.token_id)


def made(*, classes=True, broken=0, where=None):
    where = where or two_windows()
    return record_of(
        values(0.1, 0.08, broken=broken),
        where,
        2 * DOCUMENTS,
        floor=0.0,
        thresholds=Thresholds(),
        seed=0,
        classes=class_masks(where) if classes else None,
    )


@pytest.mark.parametrize("broken", [0, 7])
def test_sums_are_those_of_the_usable_tokens_of_each_window_and_class(broken):
    found, where, record = values(0.1, 0.08, broken=broken), two_windows(), made(broken=broken)
    masks = class_masks(where)
    assert record.class_sums is not None and set(record.class_sums) == set(masks)
    for name, sums in record.class_sums.items():
        for window in range(2 * DOCUMENTS):
            rows = np.flatnonzero(masks[name] & (where.window == window) & found.finite)
            assert sums.tokens_W[window] == rows.size
            assert sums.kl_W[window] == pytest.approx(found.kl[rows].sum())
            shift = np.log(np.exp(found.logp_reference[rows]) / np.exp(found.logp_candidate[rows]))
            assert sums.log_ratio_W[window] == pytest.approx(shift.sum(), abs=1e-9)


def test_classes_that_overlap_count_a_position_each_and_none_counts_the_rest_once():
    record = made()
    assert record.class_sums is not None and record.sums is not None
    tokens = {name: int(sums.tokens_W.sum()) for name, sums in record.class_sums.items()}
    assert tokens["rare"] == DOCUMENTS * 6 and tokens["numbers"] == DOCUMENTS * 12  # every tenth, which are fifths, too
    of_any = sum(record.sums.tokens) - tokens["none"]
    assert 0 < of_any < sum(tokens.values()) - tokens["none"]


def test_sums_come_back_from_the_file_to_the_last_bit(tmp_path):
    point, file = made(), tmp_path / "a.json"
    point.save(file)
    back = PointRecord.load(file)
    assert back == point
    for name, sums in point.class_sums.items():
        assert (back.class_sums[name].kl_W == sums.kl_W).all()
        assert (back.class_sums[name].log_ratio_W == sums.log_ratio_W).all()
    body = json.loads(file.read_text())
    body["class_sums"]["code"]["kl"] = "no base64"
    file.write_text(json.dumps(body))
    assert PointRecord.load(file) is None, "nothing sound"


def test_a_class_without_a_position_has_no_sums():
    mask_N, ones_N = np.zeros(4, dtype=np.bool_), np.ones(4)
    assert class_sums(ones_N, ones_N, np.zeros(4, dtype=np.int32), {"code": mask_N}, 1) == {}
