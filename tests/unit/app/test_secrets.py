"""Processes that the API starts get no secret of its environment."""

import sys

import pytest

from app.jobs.differences import Differences
from app.settings import Settings

NAMES = ("HEMOSTAT_REDIS_URL", "HEMOSTAT_REDIS_URL_FILE", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "TOKENIZERS_PARALLELISM")


async def test_the_process_that_compares_reports_knows_no_secret(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "x")
    code = f"import os, sys; sys.exit(' '.join(name for name in {NAMES} if name in os.environ))"
    with pytest.raises(RuntimeError, match=r"status 1: TOKENIZERS_PARALLELISM$"):
        await Differences(Settings(), (sys.executable, "-c", code))._run(b"")
