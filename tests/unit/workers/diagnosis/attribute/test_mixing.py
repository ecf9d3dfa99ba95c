"""Pieces of one model in another, and twins of their error."""

import pytest
import torch

from workers.diagnosis.attribute.mixing import CONTROL, THEIRS, TOLERANCE, Mixed, Mode, twin
from workers.diagnosis.attribute.sites import Piece

OWN, OTHER = torch.arange(24.0).reshape(4, 6), -torch.ones(4, 6)


def mixed():
    return Mixed(lambda _: OWN.clone(), lambda _: OTHER.clone(), torch.float32)


def test_rows_and_columns_are_taken_from_the_other():
    found = mixed()
    torch.testing.assert_close(found("w"), OWN)
    found.exchange([Piece("w", 0, 1, 3), Piece("w", 1, 5, 6)], THEIRS)
    expected = OWN.clone()
    expected[1:3] = -1
    expected[:, 5] = -1
    torch.testing.assert_close(found("w"), expected)
    torch.testing.assert_close(found("another"), OWN)
    for pieces, mode in (((), THEIRS), ([Piece("w")], CONTROL)):
        found.exchange(pieces, mode)
        torch.testing.assert_close(found("w"), OWN, rtol=0, atol=0)


def test_other_shapes_are_refused():
    found = Mixed(lambda _: OWN, lambda _: torch.ones(4, 5), torch.float32)
    found.exchange([Piece("w")], THEIRS)
    with pytest.raises(ValueError, match=r"w is \(4, 5\)"):
        found("w")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-3, 0.1, 1.0])
def test_a_twin_is_as_far_away_as_the_error_and_points_elsewhere(dtype, size):
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(256, 128, generator=generator).to(dtype)
    theirs = (own.float() + size * torch.randn(256, 128, generator=generator)).to(dtype)
    delta = theirs.float() - own.float()
    found = twin(own, theirs, 7).float() - own.float()
    assert float(found.norm()) == pytest.approx(float(delta.norm()), rel=2 * TOLERANCE)
    cosine = float((found * delta).sum() / (found.norm() * delta.norm()))
    assert abs(cosine) < 4 / (256 * 128) ** 0.5 * 2
    torch.testing.assert_close(twin(own, theirs, 7).float() - own.float(), found, rtol=0, atol=0)
    assert not torch.equal(twin(own, theirs, 8).float() - own.float(), found)


def test_no_error_has_no_twin_and_two_twins_have_names_of_their_own():
    torch.testing.assert_close(twin(OWN, OWN, 1), OWN, rtol=0, atol=0)
    assert len({THEIRS.key, CONTROL.key, Mode("twin", 1).key, Mode("twin", 2).key}) == 4
