"""The `mitigate` job: find what makes a damaged model better within a budget, and prove it.

The job measures the candidate on the documents to choose by, and finds where the damage is. It then makes trials in
the order of expected nats per byte. Front and recommendation are frozen before the test is opened, once, for the front
and nothing else. docs/recipes/mitigate.md shows the protocol.

The job's scratch keeps measurements, and the store keeps checkpoints. The attempt after a lost one finds both, gets the
same answers, and so goes the same way.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.report import Mean
from app.deployments.profiles import ProfileFiles
from app.kinds.mitigate.least_size import check_budget
from app.kinds.mitigate.report import NO_DAMAGE, Damage, MitigateReport
from app.kinds.mitigate.request import MitigateRequest, TreatmentName
from app.models.checkpoint import CheckpointInfo
from app.models.recipes import recipe_fingerprint
from app.models.registry import ModelEntry
from app.recipes.norm import NormTweak
from app.recipes.recipe import Recipe
from workers.diagnosis.mitigate import front as fronts
from workers.diagnosis.mitigate.damage import damage_of, groups_of, layer_shares, restorable, restored
from workers.diagnosis.mitigate.export import export
from workers.diagnosis.mitigate.report import Found, Tested, build_report
from workers.diagnosis.mitigate.search import Rung
from workers.diagnosis.mitigate.treatments import smallest_arm
from workers.diagnosis.mitigate.trials import Done, TrialRunner
from workers.engine.room import EngineRoom
from workers.measuring.attempt import Attempt, Scored, counted
from workers.measuring.calibration_text import CalibrationLoader
from workers.measuring.gauges import send
from workers.measuring.plan import plan_fingerprint
from workers.measuring.recipes import Bench, Measurement, RefusedError, estimate
from workers.measuring.sealed import Sealed
from workers.measuring.sets import Part, Sets, draw
from workers.measuring.sides import Side, Sides, resolve
from workers.measuring.subject import Fit, Subject
from workers.process.handler import JobContext


def tell(report: MitigateReport, request: MitigateRequest, context: JobContext) -> None:
    """Sends the gauges. The recipe of their labels is the candidate's own, so that their series go on where the next
    mitigation recommends another one."""
    full = [trial.saved.mean for trial in report.trials if trial.rung == "full" and trial.saved is not None]
    saved = report.saved
    low, high = (None, None) if saved is None or saved.ci is None else saved.ci
    gauges = {
        "mitigate_best_saved_nats": max((mean for mean in full if mean is not None), default=None),
        "mitigate_saved_nats": None if saved is None else saved.mean,
        "mitigate_saved_low_nats": low,
        "mitigate_saved_high_nats": high,
        "mitigate_helped": float(report.helped),
        # By it a dashboard shows the last of several workers' numbers.
        "mitigate_finished_timestamp_seconds": time.time(),
    }
    recipe = (recipe_fingerprint(request.candidate.recipe) or "none")[:12]
    send(gauges, report.labels() | {"recipe": recipe}, context)


def mitigate(request: MitigateRequest, context: JobContext, room: EngineRoom) -> MitigateReport:
    """Runs the job and returns its report; recipe, card and per-token values go to `context.output`.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with counted(room, context):
        return _Mitigate(request, context, room).run()


@dataclass(frozen=True)
class _Chosen:
    """The front as it was frozen, and what is recommended of it."""

    front: list[tuple[fronts.Point, Done | None]]
    recommended: fronts.Point | None
    frozen: str


class _Mitigate(Attempt):
    """One attempt at one mitigate job."""

    def __init__(self, request: MitigateRequest, context: JobContext, room: EngineRoom) -> None:
        super().__init__(request, context, room)
        self._request = request

    def run(self) -> MitigateReport:
        request, context, watch = self._request, self._context, self._watch
        with watch.phase("text"):
            reference, entry, origin = resolve(request, context)
            sets, texts = self._sets(reference, entry)
        with watch.phase("modify"):
            sides = self._made(request, reference, entry, origin, texts)
        bench = self._bench(reference, origin, entry.dtype, texts)
        with sides.modified:
            self._check_budget(sides, origin)
            scored = self._score(sides, reference, sets.choose, "reference")
            self._check_head(reference, sides.dtype, sets.choose, scored)
            self._candidate_engine(sides, sets.choose)
            with watch.phase("candidate"):
                base = self._base(bench, sides, sets, scored)
            with watch.phase("diagnose"):
                damage, shares = self._damage(bench, sides, sets, scored, base)
            subject = Subject(origin, request.candidate.recipe, base["full"].record.bytes, shares)
            with watch.phase("search"):
                runner, why = self._search(bench, subject, sets, scored, base, sides.reference.info)
            chosen = self._choose(runner)
            with watch.phase("test"):
                tested = self._test(bench, sides, sets, runner, chosen)
        context.check_cancelled()
        with watch.phase("statistics"):
            context.progress("statistics", 0, 1)
            report = build_report(
                Found(
                    request=request,
                    sides=sides,
                    sets=sets,
                    runner=runner,
                    why=why,
                    damage=damage,
                    tested=tested,
                    profiles=self._profiles(sides),
                    conditions=self._conditions(scored),
                ),
                context,
            )
        with watch.phase("report"):
            export(report, tested, sets, sides, request, bench, context)
            tell(report, request, context)
            context.progress("report", 1, 1)
        return report

    # --- before the trials

    def _sets(self, reference: Side, entry: ModelEntry) -> tuple[Sets, CalibrationLoader]:
        request, dtype = self._request, entry.dtype
        self._context.progress("text", 0, 0)
        documents = self._documents(request.text, reference, dtype)
        tests = None if request.test_text is None else self._documents(request.test_text, reference, dtype)
        texts = self._calibration(reference, dtype, [*documents, *(tests or ())])
        # What every treatment that reads text will ask for: one that is too short is reported now.
        step = NormTweak.model_validate({"type": "norm.tweak"} | self._fit().fields())
        try:
            if request.reads_text:
                texts(step)
        except HemostatError as error:
            raise HemostatError(error.code, error.detail, hint=error.hint, pointer="/calibration") from error
        sets = draw(
            documents,
            tests,
            texts.documents(step),
            lambda chosen: self._windows(chosen, reference),
            seed=request.seed,
            allow_overlap=request.allow_overlap,
        )
        return replace(sets, warnings=(*sets.warnings, *self._text_warnings())), texts

    def _fit(self) -> Fit:
        request = self._request
        return Fit(request.calibration, request.calibration_windows, request.calibration_window, request.seed)

    def _check_budget(self, sides: Sides, origin: CheckpointInfo) -> None:
        """Raises INVALID_REQUEST, before a model runs, for a budget that no allowed treatment can keep."""
        request, manifest = self._request, sides.modified.manifest
        subject = Subject(origin, request.candidate.recipe, manifest.model_nominal_bytes)
        parameters = round(8 * subject.bytes / manifest.model_bits_per_weight)
        check_budget(request.budget, subject.bytes, parameters)
        smallest = smallest_arm(subject, request.treatments)
        if smallest is not None:
            check_budget(request.budget, subject.bytes + smallest.bytes, parameters, treatment=smallest.key)

    def _base(self, bench: Bench, sides: Sides, sets: Sets, scored: Scored) -> dict[Rung, Measurement]:
        """The candidate as it is, on either rung's documents."""
        full = bench.measure(sides.modified, scored.stored, sets.full, phase="candidate", timed=True)
        inside = sets.full.where.document < sets.cheap.documents
        cheap = Measurement(full.values.select(inside), full.record, sets.cheap.where)
        return {"full": full, "cheap": cheap}

    def _damage(
        self, bench: Bench, sides: Sides, sets: Sets, scored: Scored, base: dict[Rung, Measurement]
    ) -> tuple[Damage, dict[int, float]]:
        """Which parts cost what: each restored in turn, where the weights allow it."""
        context, seed = self._context, self._request.seed
        candidate, reference = sides.candidate.info, sides.reference.info
        manifest = sides.modified.manifest
        kl = estimate(base["full"].kl, base["full"].where, seed=seed, low=0.0)
        note = restorable(candidate, reference)
        groups = [] if sides.candidate.weights == sides.reference.weights else groups_of(candidate, reference, manifest)
        saved: dict[str, Mean] = {}
        for number, group in enumerate(groups if not note else []):
            context.check_cancelled()
            context.progress("diagnose", number, len(groups))
            whole = self._restored(bench, candidate, reference, group.tensors, number, sets, scored, sides)
            saved[group.name] = estimate(base["cheap"].kl - whole.kl, sets.cheap.where, seed=seed)
        context.progress("diagnose", len(groups), len(groups))
        damage = damage_of(kl, groups, saved, note)
        return damage, layer_shares(damage.parts, candidate, manifest)

    def _restored(
        self,
        bench: Bench,
        candidate: CheckpointInfo,
        reference: CheckpointInfo,
        tensors: tuple[str, ...],
        number: int,
        sets: Sets,
        scored: Scored,
        sides: Sides,
    ) -> Measurement:
        """The candidate with some tensors of the reference; the numbers are found again by a later attempt."""
        name = plan_fingerprint([sides.candidate.weights, sides.reference.weights, *tensors])
        kept = bench.kept(name, sets.cheap)
        if kept is not None:
            return kept
        with restored(candidate, reference, tensors, self._context.scratch / "restored", self._context) as info:
            return bench.keep(name, info, scored.stored, sets.cheap, phase="restored")

    # --- trials and choice

    def _search(
        self,
        bench: Bench,
        subject: Subject,
        sets: Sets,
        scored: Scored,
        base: dict[Rung, Measurement],
        reference: CheckpointInfo,
    ) -> tuple[TrialRunner, dict[TreatmentName, str]]:
        request, context = self._request, self._context

        def measure(recipe: Recipe, rung: Rung) -> Measurement:
            part = sets.cheap if rung == "cheap" else sets.full
            return bench.trial(recipe, scored.stored, part, phase="trial", timed=rung == "full")

        runner = TrialRunner(
            subject=subject,
            fit=self._fit(),
            limits=fronts.limits_of(request.budget, subject.bytes),
            base=base,
            measure=measure,
            context=context,
            seed=request.seed,
            reference=reference,
        )
        arms, why = runner.arms(request.treatments)
        if base["full"].mean > NO_DAMAGE:
            runner.run(arms, request.trials)
        return runner, why

    def _choose(self, runner: TrialRunner) -> _Chosen:
        """Front and recommendation, frozen: from here on the test may be read."""
        points = runner.points()
        by_key = {point.key: done for point, done in points}
        front = fronts.front_of(fronts.feasible([point for point, _ in points], runner.limits))
        recommended = fronts.recommend(front, runner.limits)
        kept = fronts.thinned(front, recommended)
        untreated = points[0][0]
        if untreated not in kept:
            kept = [untreated, *kept]
        told = {
            "front": [[point.key, point.bytes, point.kl] for point in kept],
            "recommended": None if recommended is None else recommended.key,
            "rule": fronts.RULE,
            "limits": runner.limits.model_dump(),
        }
        frozen = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        return _Chosen([(point, by_key[point.key]) for point in kept], recommended, frozen)

    # --- the test

    def _test(self, bench: Bench, sides: Sides, sets: Sets, runner: TrialRunner, chosen: _Chosen) -> Tested:
        context = self._context
        sealed = Sealed(lambda: Part.of(sets.test), context.scratch / "test-opened.json")
        opened = sealed.open(chosen.frozen)
        part = opened.content
        scored = self._score(sides, sides.reference, sets.test, "test")
        floor = self._noise_floor(sides, sets.test, scored)
        measured: dict[str, Measurement] = {}
        for number, (point, done) in enumerate(chosen.front):
            context.check_cancelled()
            context.progress("test", number, len(chosen.front))
            if done is None:
                measured[point.key] = bench.measure(sides.modified, scored.stored, part, phase="test")
            else:
                measured[point.key] = self._again(bench, done, scored, part)
        return Tested(
            part=part,
            floor=floor,
            front=chosen.front,
            recommended=chosen.recommended,
            measured=measured,
            frozen=opened.frozen,
            opened_at=opened.at,
        )

    def _again(self, bench: Bench, done: Done, scored: Scored, part: Part) -> Measurement:
        try:
            return bench.trial(done.recipe, scored.stored, part, phase="test", timed=False)
        except RefusedError as error:  # it was made and measured a while ago
            raise HemostatError(ErrorCode.ENGINE_FAILED, f"a measured recipe was refused later: {error}") from error

    def _profiles(self, sides: Sides) -> tuple[str, ...]:
        """Corrections at decoding that were fitted for this very candidate."""
        if "calibration" not in self._request.treatments:
            return ()
        return tuple(
            profile.version
            for profile in ProfileFiles(self._context.settings).list()
            if profile.fit.candidate.weights_fingerprint == sides.candidate.weights
        )
