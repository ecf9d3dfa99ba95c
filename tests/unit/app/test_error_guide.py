from app.contracts.errors import CATALOGUE, ErrorCode
from app.error_guide import GUIDE


def test_every_code_is_in_the_catalogue_and_in_the_guide():
    assert set(CATALOGUE) == set(GUIDE) == set(ErrorCode)
