"""Whether a worker is asked to go."""

import asyncio


class Drain:
    """Whether the worker is asked to go. `hurry`: at once, instead of giving the running job time."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.hurry = asyncio.Event()

    def begin(self) -> None:
        """The first call starts the drain, the second ends the running job's time."""
        (self.hurry if self.begun.is_set() else self.begun).set()
