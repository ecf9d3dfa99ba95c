"""Programs that tests need and `make setup` does not install."""

import os
import shutil

import pytest


def tool(*names: str) -> str:
    """Path of the first of these programs that is here. Without any the test is skipped; it fails where CI is set."""
    for name in names:
        if found := shutil.which(name):
            return found
    reason = f"{names[0]} is not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}: .ci/run installs it")
    pytest.skip(reason)
