"""What a refit learns from: the most recent requests, and a fixed random sample of the original fitting set.

Both hold names and token counts; what the names stand for is elsewhere.

The reservoir is a bottom-k sample (Cohen and Kaplan 2007): every name gets a pseudo-random key from the seed and the
name alone, and the items of the smallest keys are kept as long as they fit the token budget. So it is the same
whatever the order in which the items came, however often one came, and on every machine; each item is kept or not by a
draw that its content does not decide. (The first item past the budget ends the sample, so sizes shift the probability
by a part of one item in budget at most.)
"""

from __future__ import annotations

import hashlib

from pydantic import Field

from app.contracts.base import Contract


class Item(Contract):
    """One document or request."""

    name: str = Field(min_length=1, max_length=256)
    tokens: int = Field(ge=1)


class ItemsMemory(Contract):
    """What is kept: by rising key in a reservoir, oldest first among the recent."""

    items: tuple[Item, ...] = ()
    limit: int | None = Field(default=None, description="reservoir: smallest key that was ever dropped")

    @property
    def tokens(self) -> int:
        """Their sum."""
        return sum(item.tokens for item in self.items)


def key(seed: int, name: str) -> int:
    """The item's place in the draw: 64 bits of a hash."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\x00{name}".encode(), digest_size=8).digest(), "big")


class Reservoir(Contract):
    """The rule of a sample of all items ever offered."""

    budget_tokens: int = Field(ge=1)
    seed: int = 0

    def start(self) -> ItemsMemory:
        """Empty."""
        return ItemsMemory()

    def add(self, memory: ItemsMemory, item: Item) -> ItemsMemory:
        """After one more item was offered. An item that alone exceeds the budget is never kept."""
        place = key(self.seed, item.name)
        if item.tokens > self.budget_tokens or any(kept.name == item.name for kept in memory.items):
            return memory
        # What came past the budget once stays out, and so must all that is behind it: nothing is let in out of turn.
        if memory.limit is not None and place >= memory.limit:
            return memory
        room, kept, limit = self.budget_tokens, [], memory.limit
        for each in sorted((*memory.items, item), key=lambda each: key(self.seed, each.name)):
            room -= each.tokens
            if room < 0:
                limit = key(self.seed, each.name)
                break
            kept.append(each)
        return ItemsMemory(items=tuple(kept), limit=limit)


class RecentItems(Contract):
    """The rule of the most recent items within a token budget."""

    budget_tokens: int = Field(ge=1)

    def start(self) -> ItemsMemory:
        """Empty."""
        return ItemsMemory()

    def add(self, memory: ItemsMemory, item: Item) -> ItemsMemory:
        """After one more item; an item that came again is the most recent. One that exceeds the budget is left out."""
        if item.tokens > self.budget_tokens:
            return memory
        items = [kept for kept in memory.items if kept.name != item.name] + [item]
        excess = sum(kept.tokens for kept in items) - self.budget_tokens
        while excess > 0:
            excess -= items.pop(0).tokens
        return ItemsMemory(items=tuple(items))
