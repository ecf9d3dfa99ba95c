"""The batch's order, against vLLM's own bookkeeping of it."""

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from workers.engine.serving.rows import Row, RowMap


class Recorder:
    """A map of rows that notes who came, left and returned."""

    def __init__(self) -> None:
        self.left: list[Row] = []
        self.returned: list[Row] = []
        self.map = RowMap(self.make, self.left.append, self.returned.append)

    def make(self, params: Any, prompt: list[int], output: list[int]) -> Row:
        return Row(params, prompt, output, request=params)


def change(
    removed: list[int] | None = None, added: list[Any] | None = None, moved: list[Any] | None = None
) -> SimpleNamespace:
    return SimpleNamespace(removed=removed or [], added=added or [], moved=moved or [])


ONE_WAY, SWAP = SimpleNamespace(name="UNIDIRECTIONAL"), SimpleNamespace(name="SWAP")


def names(recorder: Recorder) -> dict[int, str]:
    return {index: row.request for index, row in recorder.map.rows.items()}


def test_removed_added_and_moved_are_taken_in_that_order() -> None:
    seen = Recorder()
    seen.map.update(change(added=[(index, name, [1], []) for index, name in enumerate("abcd")]))
    seen.map.update(change(removed=[1, 0], added=[(0, "e", [1], [])], moved=[(3, 1, ONE_WAY)]))
    assert names(seen) == {0: "e", 1: "d", 2: "c"}
    assert [row.request for row in seen.left] == ["b", "a"]
    seen.map.update(change(moved=[(0, 2, SWAP)]))
    assert names(seen) == {0: "c", 1: "d", 2: "e"}


def test_an_added_request_may_replace_one_that_was_not_removed() -> None:
    seen = Recorder()
    seen.map.update(change(added=[(0, "a", [1], [])]))
    seen.map.update(change(added=[(0, "b", [1], [])]))
    assert names(seen) == {0: "b"}
    assert [row.request for row in seen.left] == ["a"]


def test_who_comes_back_is_the_same_row_and_who_only_looks_alike_is_not() -> None:
    seen = Recorder()
    output: list[int] = []
    seen.map.update(change(added=[(0, "a", [1, 2], output)]))
    first = seen.map.rows[0]
    first.version = "cal-0000000000000001"
    output.append(7)
    seen.map.update(change(removed=[0]))
    seen.map.update(change(added=[(0, "a", [1, 2], [7])]))
    assert seen.map.rows[0] is not first
    seen.map.update(change(added=[(1, "a", [1, 2], output)]))
    assert seen.map.rows[1] is first
    assert (first.prompt, first.output, first.position, first.token) == ([1, 2], [7], 3, 7)
    assert seen.returned == [first]


@given(
    st.lists(st.tuples(st.sampled_from(["add", "remove", "swap"]), st.integers(0, 7), st.integers(0, 7)), max_size=40)
)
def test_it_is_always_what_vllm_has(steps: list[tuple[str, int, int]]) -> None:
    """A list of requests that is added to, removed from (its last one fills the gap) and swapped."""
    seen = Recorder()
    batch: list[str] = []
    for number, (what, one, other) in enumerate(steps):
        if what == "add":
            batch.append(str(number))
            seen.map.update(change(added=[(len(batch) - 1, str(number), [1], [])]))
        elif what == "remove" and one < len(batch):
            last = len(batch) - 1
            seen.map.update(change(removed=[one], moved=[] if one == last else [(last, one, ONE_WAY)]))
            batch[one] = batch[last]
            batch.pop()
        elif what == "swap" and max(one, other) < len(batch) and one != other:
            seen.map.update(change(moved=[(one, other, SWAP)]))
            batch[one], batch[other] = batch[other], batch[one]
        assert names(seen) == dict(enumerate(batch))
