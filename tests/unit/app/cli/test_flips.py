"""`hemostat flips predict` says of each value that nothing is predicted for what is wrong with it."""

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.contracts.errors import ErrorCode, HemostatError

KL = "has to be a number above zero"
ITEMS = "--items is 0, and has to be 1 at least"


@pytest.mark.parametrize(
    ("arguments", "detail"),
    [
        (["0"], f"the KL is 0, and {KL}"),
        (["-0.39"], f"the KL is -0.39, and {KL}"),
        (["nan"], f"the KL is nan, and {KL}"),
        (["inf"], f"the KL is inf, and {KL}"),
        (["0.39", "--items", "0"], ITEMS),
        (["-1", "--items", "0"], f"the KL is -1, and {KL}; {ITEMS}"),
    ],
)
def test_each_value_that_cannot_be_is_named(arguments, detail):
    done = CliRunner().invoke(app, ["flips", "predict", *arguments])
    assert isinstance(done.exception, HemostatError)
    assert (done.exception.code, done.exception.detail) == (ErrorCode.INVALID_REQUEST, detail)
    assert "hemostat flips predict 0.39" in done.exception.hint
