"""The cheapest path by bytes: the published one, and its definition on drawn settings."""

import itertools

import numpy as np

from tests.support.published_surfaces import PRINTED_SIZES, WANDA_FORMATS, WANDA_GGUF, WANDA_SHARES
from workers.diagnosis.surface.path import Setting, cheapest


def published():
    return [
        Setting(
            WANDA_SHARES.index(share),
            WANDA_FORMATS.index(form),
            round(1000 * size),
            float(WANDA_GGUF[WANDA_SHARES.index(share), WANDA_FORMATS.index(form)]),
        )
        for (share, form), size in PRINTED_SIZES.items()
    ]


def test_the_published_path_quantizes_to_three_bits_first_and_prunes_then():
    path = [(WANDA_SHARES[one.first], WANDA_FORMATS[one.second]) for one in cheapest(published())]
    assert path == [
        (0, "Q8_0"),  # which is no worse than F16, 6.156 against 6.157, at half its size
        (0, "Q6_K"),
        (10, "Q5_K_M"),
        (10, "Q4_K_M"),
        (0, "Q3_K_M"),
        (10, "Q3_K_M"),
        (20, "Q3_K_M"),
        (30, "Q3_K_M"),
        (40, "Q3_K_M"),
        (50, "Q3_K_M"),
        (55, "Q3_K_M"),
        (50, "Q2_K"),
    ]


def test_it_is_what_no_other_setting_beats():
    rng = np.random.default_rng(2)
    settings = [Setting(i, j, int(rng.integers(1, 50)), float(rng.random())) for i in range(8) for j in range(8)]
    path = cheapest(settings)
    beaten = [
        one
        for one in settings
        if any(
            other.bytes <= one.bytes and other.loss <= one.loss and (other.bytes, other.loss) != (one.bytes, one.loss)
            for other in settings
        )
    ]
    assert {(one.bytes, one.loss) for one in path} == {(one.bytes, one.loss) for one in settings if one not in beaten}
    assert all(a.bytes > b.bytes and a.loss < b.loss for a, b in itertools.pairwise(path))


def test_of_settings_alike_the_plainest_stands_for_all():
    alike = [Setting(1, 3, 5, 0.2, True), Setting(1, 1, 5, 0.2, True), Setting(1, 1, 5, 0.2), Setting(0, 3, 5, 0.2)]
    assert cheapest(alike) == [Setting(0, 3, 5, 0.2)]
    assert cheapest(alike[:3]) == [Setting(1, 1, 5, 0.2)]
    assert cheapest([Setting(0, 0, 9, 1.0), Setting(1, 0, 1, float("nan"))]) == [Setting(0, 0, 9, 1.0)]


def test_what_saves_next_to_no_bytes_is_no_step():
    # Bytes and KL as measured: pruning a fifth of a four-bit model saved 2,501 bytes.
    rounded, both, further = (
        Setting(0, 2, 113924736, 0.38),
        Setting(1, 2, 113922235, 0.45),
        Setting(2, 2, 104300230, 1.7),
    )
    assert cheapest([rounded, both, further]) == [rounded, further]
    fine = [Setting(place, 0, 1_000_000 - 400 * place, 0.1 + place) for place in range(7)]
    assert [one.first for one in cheapest(fine)] == [0, 3, 6], "small steps add up"
