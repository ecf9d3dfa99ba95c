from workers.process.drain import Drain


async def test_the_second_signal_hurries() -> None:
    drain = Drain()
    drain.begin()
    assert drain.begun.is_set()
    assert not drain.hurry.is_set()
    drain.begin()
    assert drain.hurry.is_set()
