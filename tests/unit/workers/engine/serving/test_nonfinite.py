from workers.engine.serving.nonfinite import EndedRequests


def test_the_oldest_are_forgotten() -> None:
    ended = EndedRequests(most=2)
    for name in ("a", "b", "c"):
        ended.add(name, f"why {name}")
    ended.add("", "nobody can ask")
    assert [ended.why(name) for name in ("a", "b", "c", "")] == [None, "why b", "why c", None]
    assert len(ended) == 2


def test_they_expire() -> None:
    ended = EndedRequests(expiry_s=0.0)
    ended.add("a", "why")
    assert ended.why("a") is None
