"""Tokenizers that several of these tests read with."""

from typing import TYPE_CHECKING

import pytest

from app.settings import Settings
from tests.support.tiny import make_tokenizer
from workers.text.tokenization import load_tokenizer

if TYPE_CHECKING:
    pass


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2):
    return load_tokenizer(smollm2)


@pytest.fixture(scope="session")
def plain_tokenizer():
    """Adds no BOS, has a chat template with `{% generation %}`."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def bos_tokenizer():
    """Adds a BOS (id 0) before every text."""
    return make_tokenizer(bos=True)


@pytest.fixture
def settings(tmp_path):
    """`settings(**fields)`: settings with a home and a text root of the test's own."""
    root = tmp_path / "texts"
    root.mkdir()

    def make(**fields):
        return Settings(**({"home": tmp_path / "home", "text_root": root} | fields))

    return make
