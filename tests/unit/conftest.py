"""The terminal's width is each test's own, and no unit test depends on the processor that it runs on."""

import os
from functools import cache
from importlib import import_module

import pytest
import typer.testing

# A console keeps the width that the environment tells when it is made, which is when this module is first imported:
# that may not be within a test that has set one, nor in a shell that exports its own.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)
import_module("app.cli.output")
# A runner makes all commands anew for each call, which takes longer than most calls.
typer.testing._get_command = cache(typer.testing._get_command)


@pytest.fixture(autouse=True)
def kernels_for_four_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run on them here: what would be refused without AVX-512 is looked at as with it."""
    for module in ("app.models.packing", "app.models.steps.quantize"):
        monkeypatch.setattr(f"{module}.has_avx512", lambda: True)
