"""Each calibrator against its formula, written out in float64."""

import math

import pytest
import torch

from tests.unit.workers.calibrators.conftest import make
from workers.calibrators.confidence import ConfidenceTemperature
from workers.calibrators.identity import Identity
from workers.calibrators.kinds import Chain
from workers.calibrators.lowrank import LowRank
from workers.calibrators.protocol import RowContext
from workers.calibrators.temperature import Temperature
from workers.calibrators.token_bias import TokenBias


def test_temperature(logits_TV: torch.Tensor, context: RowContext) -> None:
    torch.testing.assert_close(Temperature(2.0).apply_logits(logits_TV, context), logits_TV / 2)
    assert Temperature(1.0).apply_logits(logits_TV, context) is logits_TV


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_none(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        Temperature(temperature)


def test_confidence(logits_TV: torch.Tensor, context: RowContext) -> None:
    logits_TV = logits_TV.double()
    made = make("confidence")
    assert isinstance(made, ConfidenceTemperature)
    top_T = logits_TV.softmax(1).amax(1).log()
    scales = []
    for x in top_T.tolist():
        if x <= -3:
            scales.append(0.2)
        elif x <= -1:
            scales.append(0.2 - 0.3 * (x + 3) / 2)
        else:
            scales.append(-0.1 + 0.5 * min(1.0, (x + 1) / 0.9))
    expected = logits_TV * torch.tensor(scales, dtype=torch.float64).exp()[:, None]
    torch.testing.assert_close(made.apply_logits(logits_TV, context), expected, rtol=1e-6, atol=1e-6)


def test_confidence_of_many_rows_is_that_of_each(context: RowContext) -> None:
    logits_TV = torch.randn(200, 67, generator=torch.Generator().manual_seed(1))
    made = make("confidence")
    whole = made.apply_logits(logits_TV, context)
    torch.testing.assert_close(whole, torch.cat([made.apply_logits(row[None], context) for row in logits_TV]))
    assert torch.equal(made.apply_logits_(logits_TV, context), whole)


def test_token_bias(logits_TV: torch.Tensor, context: RowContext) -> None:
    expected = logits_TV.clone()
    for token, value in ((0, 0.5), (5, -1.25), (66, 2.0)):
        expected[:, token] += value
    torch.testing.assert_close(make("token_bias").apply_logits(logits_TV, context), expected)


def test_a_bias_of_no_token_changes_nothing(logits_TV: torch.Tensor, context: RowContext) -> None:
    none = TokenBias(torch.empty(0, dtype=torch.int64), torch.empty(0), 67)
    assert none.apply_logits(logits_TV, context) is logits_TV
    assert none.describe()["biased_tokens"] == 0


def test_lowrank(hidden_TD: torch.Tensor, context: RowContext) -> None:
    made = make("lowrank")
    assert isinstance(made, LowRank)
    matrix_DD = torch.eye(made.hidden_size) + made.down_DR @ made.up_RD
    torch.testing.assert_close(made.apply_hidden(hidden_TD, context), hidden_TD @ matrix_DD + made.shift_D)


def test_lowrank_begins_at_the_identity(hidden_TD: torch.Tensor, context: RowContext) -> None:
    width = hidden_TD.shape[1]
    made = LowRank(torch.randn(width, 4), torch.zeros(4, width), torch.zeros(width))
    assert torch.equal(made.apply_hidden(hidden_TD.bfloat16(), context), hidden_TD.bfloat16())


def test_a_chain_acts_in_order_and_is_flat(
    hidden_TD: torch.Tensor, logits_TV: torch.Tensor, context: RowContext
) -> None:
    made = make("chain")
    assert isinstance(made, Chain)
    assert [part.kind for part in made.parts] == ["lowrank", "confidence", "token_bias"]
    assert torch.equal(made.apply_hidden(hidden_TD, context), make("lowrank").apply_hidden(hidden_TD, context))
    first = make("confidence").apply_logits(logits_TV, context)
    assert torch.equal(made.apply_logits(logits_TV, context), make("token_bias").apply_logits(first, context))


def test_a_chain_of_nothing_is_the_identity(hidden_TD: torch.Tensor, context: RowContext) -> None:
    made = Chain([Identity(), Chain([])])
    assert made.parts == ()
    assert made.apply_hidden(hidden_TD, context) is hidden_TD


def test_parts_of_different_models_make_no_chain() -> None:
    with pytest.raises(ValueError, match="hidden sizes"):
        Chain([make("lowrank"), LowRank(torch.zeros(5, 1), torch.zeros(1, 5), torch.zeros(5))])
