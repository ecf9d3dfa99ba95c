"""Tokenizers that several of these tests read with."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.settings import Settings
from tests.support.tiny import make_tokenizer
from workers.text.tokenization import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2: Path) -> "PreTrainedTokenizerBase":
    return load_tokenizer(smollm2)


@pytest.fixture(scope="session")
def plain_tokenizer() -> "PreTrainedTokenizerBase":
    """Adds no BOS, has a chat template with `{% generation %}`."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def bos_tokenizer() -> "PreTrainedTokenizerBase":
    """Adds a BOS (id 0) before every text."""
    return make_tokenizer(bos=True)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """`settings(**fields)`: settings with a home and a text root of the test's own."""
    root = tmp_path / "texts"
    root.mkdir()

    def make(**fields: Any) -> Settings:
        return Settings(**({"home": tmp_path / "home", "text_root": root} | fields))

    return make
