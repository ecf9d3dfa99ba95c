from workers.mitigation.split import Split


def test_the_last_eighth_decides():
    assert Split.of(16) == Split(tuple(range(14)), (14, 15))
    assert Split.of(2) == Split((0,), (1,))
    assert Split.of(1) == Split((0,), (0,))
