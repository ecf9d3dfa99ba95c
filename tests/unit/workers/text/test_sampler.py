from workers.text.sampler import DeferredSampler


class Recorder:
    def __init__(self) -> None:
        self.closed = 0

    def sample(self, prompts: list[list[int]], max_tokens: int, seed: int, temperature: float) -> list[list[int]]:
        return [[*prompt, max_tokens, seed, int(temperature)] for prompt in prompts]

    def close(self) -> None:
        self.closed += 1


class Unclosable:
    def sample(self, prompts: list[list[int]], max_tokens: int, seed: int, temperature: float) -> list[list[int]]:
        return prompts


def test_it_starts_at_the_first_call_once_and_closes_what_it_started() -> None:
    started: list[Recorder] = []

    def start() -> Recorder:
        started.append(Recorder())
        return started[-1]

    with DeferredSampler(start) as sampler:
        assert not started
        assert sampler.sample([[7]], 2, 3, 1.0) == [[7, 2, 3, 1]]
        assert sampler.sample([[8]], 2, 3, 1.0) == [[8, 2, 3, 1]]
        assert len(started) == 1
        assert not started[0].closed
    assert started[0].closed == 1
    sampler.close()
    assert started[0].closed == 1
