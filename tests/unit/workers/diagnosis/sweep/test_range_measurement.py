"""A sweep's budget and its progress, with made-up points: the real claims and files, no model."""

import threading
import time
from itertools import pairwise

from app.contracts.request import Thresholds
from app.kinds.sweep.request import FormBounds
from app.locks import try_lock
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.sweep_reports import bending, course
from workers.diagnosis.sweep.range_measurement import Range, RangeMeasurement
from workers.measuring.points.ground import Ground
from workers.measuring.points.progress import Counted
from workers.measuring.points.record import PointRecord
from workers.measuring.points.runner import PHASE, PointRunner, Setting

COUNT, BUDGET = 17, 9
SETTINGS = tuple(Setting((index,), ()) for index in range(COUNT))
CURVE = course(bending(COUNT)).points
S = tuple(point.s for point in CURVE)


class MadeUp(PointRunner):
    """Points of a known curve; making one takes a little while."""

    def key(self, setting):
        return f"point-{setting.values[0]}"

    def _measured(self, setting):
        time.sleep(0.02)
        index = int(setting.values[0])
        return CURVE[index].record.model_copy(update={"by": self._by, "measured_at": time.time()})


def turning(folder, by, *, s=S, ordered=True, made_up=MadeUp):
    context = Context(Settings(home=folder), folder)
    nothing = None
    ground = Ground(sides=nothing, part=nothing, run=nothing, texts=nothing)
    runner = made_up(
        ground, nothing, context, Counted(context, total=BUDGET, phase=PHASE), thresholds=Thresholds(), seed=0
    )
    runner._by = by
    over = Range(SETTINGS, None if s is None else tuple(s), ordered)
    made = RangeMeasurement(
        runner,
        over,
        budget=BUDGET,
        bounds=FormBounds(),
        thresholds=Thresholds(),
        check_cancelled=context.check_cancelled,
    )
    return made, runner, context


def test_workers_that_choose_together_keep_the_budget_and_measure_nothing_twice(tmp_path):
    begun = set()
    met = threading.Event()

    class Meeting(MadeUp):
        """The first point of the first worker takes until another one has begun its own."""

        def _measured(self, setting):
            begun.add(self._by)
            if len(begun) > 1:
                met.set()
            assert met.wait(60)
            return super()._measured(setting)

    made = [turning(tmp_path, f"worker-{number}", made_up=Meeting) for number in range(3)]
    found = []
    threads = [
        threading.Thread(target=lambda one=one, wait=wait: found.append(one.run(wait=wait)))
        for (one, _, _), wait in zip(made, (True, False, False), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = list((tmp_path / "partial" / "points").glob("*.json"))
    assert len(files) == BUDGET
    whole = next(points for points in found if len(points) == BUDGET)
    assert {0, COUNT - 1} <= set(whole)
    assert len({record.by for record in whole.values()}) > 1, "each did a part"
    for _, _, context in made:
        steps = [(done, total) for phase, done, total in context.steps if phase == PHASE]
        assert steps == sorted(steps), "progress does not jump back"
    assert made[0][2].steps[-1] == (PHASE, BUDGET * 100, BUDGET * 100), "the points of the others count, too"


def test_an_attempt_after_a_lost_one_counts_what_is_there_chosen_points_included(tmp_path):
    first, _, _ = turning(tmp_path, "lost")
    lost = first.run()
    kept = sorted((tmp_path / "partial" / "points").glob("*.json"))
    last = max(lost, key=lambda place: lost[place].measured_at)
    (tmp_path / "partial" / "points" / f"point-{last}.json").unlink()
    again, runner, context = turning(tmp_path, "next")
    found = again.run()
    assert set(found) == set(lost), "the same choice from the same points"
    assert sorted((tmp_path / "partial" / "points").glob("*.json")) == kept
    assert runner.resumed == BUDGET - 1
    assert [found[place].by for place in found].count("next") == 1
    steps = [done for phase, done, _ in context.steps if phase == PHASE]
    assert steps == sorted(steps) and steps[-1] == BUDGET * 100


def test_a_helper_leaves_when_the_budget_is_taken(tmp_path):
    first, runner, _ = turning(tmp_path, "first")
    whole = first.run()
    last = max(whole, key=lambda place: whole[place].measured_at)
    (tmp_path / "partial" / "points" / f"point-{last}.json").unlink()
    held = try_lock(runner._claims / f"point-{last}", exclusive=True)
    helper, _, _ = turning(tmp_path, "helper")
    assert set(helper.run(wait=False)) == set(whole) - {last}
    held.release()


CALM, HARSH = (point.record for point in course([(0, None, 0.001, 0.001), (1, None, 0.9, 0.9)]).points)


class Calm(MadeUp):
    """Mild up to the fifth place."""

    def _measured(self, setting):
        record = CALM if int(setting.values[0]) <= 5 else HARSH
        return record.model_copy(update={"by": self._by, "measured_at": time.time()})


def test_where_mild_ends_is_narrowed_without_a_share(tmp_path):
    made, _, _ = turning(tmp_path, "one", s=None, made_up=Calm)
    found = set(made.run())
    assert len(found) == BUDGET and {0, 5, 6, COUNT - 1} <= found


def test_settings_of_a_share_that_was_measured_come_last_and_are_not_left_out(tmp_path):
    """Eight shares, of which all but the last have two settings: a budget of nine buys a second one."""
    shares = [S[2 * (place // 2)] for place in range(COUNT)]
    made, _, _ = turning(tmp_path, "one", s=shares)
    found = made.run()
    assert len(found) == BUDGET and {shares[place] for place in found} == set(shares)
    few = [S[6 * (place // 6)] for place in range(COUNT)]
    made, _, _ = turning(tmp_path / "few", "one", s=few)
    assert len(made.run()) == BUDGET, "three shares, which is too few for a knee"


def test_a_loss_beyond_what_can_be_fitted_is_left_out_of_the_choice(tmp_path):
    """e^720 is no number of 64 bits."""

    class Lost(MadeUp):
        first = COUNT - 1

        def _measured(self, setting):
            record = super()._measured(setting)
            if int(setting.values[0]) < self.first or record.sums is None:
                return record
            loss = tuple(720.0 * tokens for tokens in record.sums.tokens)
            return record.model_copy(update={"sums": record.sums.model_copy(update={"loss": loss})})

    class LostEarly(Lost):
        first = 3

    for made_up in (Lost, LostEarly):
        made, _, _ = turning(tmp_path / made_up.__name__, "one", made_up=made_up)
        assert len(made.run()) == BUDGET


def test_settings_that_all_remove_the_same_share_are_spread_evenly(tmp_path):
    made, _, _ = turning(tmp_path, "one", s=[0.5] * COUNT, ordered=False)
    found = sorted(made.run())
    assert len(found) == BUDGET and found[0] == 0 and found[-1] == COUNT - 1
    assert max(after - before for before, after in pairwise(found)) <= 3


def test_without_an_order_of_strength_the_budget_is_spread_evenly(tmp_path):
    made, _, _ = turning(tmp_path, "one", s=None, ordered=False, made_up=Calm)
    found = sorted(made.run())
    assert found[0] == 0 and found[-1] == COUNT - 1
    assert max(after - before for before, after in pairwise(found)) <= 3


def test_a_setting_that_the_model_does_not_take_is_not_asked_for_again(tmp_path):
    class Refusing(MadeUp):
        def _measured(self, setting):
            index = int(setting.values[0])
            record = PointRecord(refused="not taken") if index in (7, 8) else CALM if index < 7 else HARSH
            return record.model_copy(update={"by": self._by, "measured_at": time.time()})

    made, _, _ = turning(tmp_path, "one", s=None, made_up=Refusing)
    found = set(made.run())
    assert len(found) == BUDGET and {6, 9} <= found
