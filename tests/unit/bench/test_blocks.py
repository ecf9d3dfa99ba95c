import torch

from tests.bench.blocks import dealt_out
from workers.calibration.fitting.blocks import FitText


def text(windows: int, documents: int) -> FitText:
    weight_NL = torch.ones(windows, 8)
    weight_NL[:, 0] = 0.0
    return FitText(torch.zeros(windows, 8, dtype=torch.int64), weight_NL, torch.arange(windows) * documents // windows)


def test_text_that_the_reference_writes_is_spread_over_the_documents() -> None:
    both = dealt_out(text(10, 5), torch.ones(8, 8, dtype=torch.int64))
    written_N = both.tokens_NL[:, 0] == 1
    assert len(both.document_N.unique()) == 5 + 8
    fitted_N, held_N = both.parts()
    assert held_N[written_N].any()
    assert held_N[~written_N].any()
    assert fitted_N.sum() > held_N.sum()
