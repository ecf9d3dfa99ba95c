"""The `calibrate` job: fit corrections of a candidate, choose one, and prove it on documents that nothing was tuned on.

Order: text, surgery, hidden states of both models over three disjoint sets of documents, head checks, noise floor. Then
corrections after each block if they are asked for, and the states with them, other fits, choice. Then everything is
frozen and the test is opened once, for the decision to serve and for every number of the report. The attempt after a
lost one finds hidden states and fits again, finished or not, and the values of the choice and the test. Only the walk
of corrections after each block starts over. The protocol: docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Final

import numpy as np
import torch

from app.contracts.text import SelfText
from app.kinds.calibrate.calibrators import FITTED, walks
from app.kinds.calibrate.plan import to_fit
from app.kinds.calibrate.report import CalibrateReport
from app.kinds.calibrate.request import CalibrateRequest
from app.models.checkpoint import inspect
from workers.calibration.fits import Fits, Fitted, fit_bytes, refine_bytes, walk_bytes
from workers.calibration.measure import Logits, cost_microseconds, mean_kl_columns, served
from workers.calibration.profiles import ProfileStore, tensor_bytes
from workers.calibration.proof import Choice, prove
from workers.calibration.record import profile_record
from workers.calibration.reductions import Reductions
from workers.calibration.report import Tested, build_report
from workers.calibration.rows import Rows, gather
from workers.calibration.selection import Candidate, choose, frozen_hash
from workers.calibration.sets import Sets, draw
from workers.calibrators.blocks import Blocks
from workers.engine.blocks import attach
from workers.engine.room import EngineRoom
from workers.measuring.attempt import Attempt, Scored, counted
from workers.measuring.calibration_text import CalibrationLoader
from workers.measuring.floor import Floor
from workers.measuring.gauges import send
from workers.measuring.plan import plan_fingerprint
from workers.measuring.sealed import Opened, Sealed
from workers.measuring.sides import Side, Sides, resolve
from workers.process.handler import JobContext
from workers.text.windows import Corpus

RAW_FILE: Final = "raw.parquet"
CALIBRATED_FILE: Final = "calibrated.parquet"


def export_metrics(report: CalibrateReport, context: JobContext) -> None:
    """Sends the gauges of this calibration. Labels are aliases and the recipe's fingerprint."""
    row = next(found for found in report.test.table if found.chosen)
    gauges = {"calibrate_saved_ratio": row.own.saved_share, "calibrate_passed": float(report.test.passed)}
    send(gauges, report.labels(), context)
    context.observe("calibrate_profiles", 1, outcome="passed" if report.test.passed else "refused")


def calibrate(request: CalibrateRequest, context: JobContext, room: EngineRoom) -> CalibrateReport:
    """Runs the job and returns its report; the profile goes to the profile store, per-token values to the output.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with counted(room, context):
        return _Calibrate(request, context, room).run()


@dataclass(frozen=True)
class _Pair:
    """Hidden states of both models over one set, and of the candidate with corrections after each block."""

    reference: Scored
    candidate: Scored
    corrected: Scored | None = None


class _Calibrate(Attempt):
    """One attempt at one calibrate job."""

    def __init__(self, request: CalibrateRequest, context: JobContext, room: EngineRoom) -> None:
        super().__init__(request, context, room)
        self._request = request

    def run(self) -> CalibrateReport:
        request, context, watch, pool = self._request, self._context, self._watch, self._room.pool
        with watch.phase("text"):
            reference, entry, origin = resolve(request, context)
            sets, texts = self._sets(reference, entry.dtype)
        with watch.phase("modify"):
            sides = self._made(request, reference, entry, origin, texts)
        names = to_fit(request, sides.reference.info, sides.candidate.info, compiled=context.settings.engine_compile)
        with sides.modified:
            pairs = self._hidden(sides, sets)
            floor = self._noise_floor(sides, sets.test, pairs["test"].reference)
            plan = plan_fingerprint(
                [*(pair.candidate.key for pair in pairs.values()), *(pair.reference.key for pair in pairs.values())]
            )
            scratch = context.scratch / f"calibrate-{plan[:16]}"
            scratch.mkdir(parents=True, exist_ok=True)
            blocks = None
            if walks(names):
                blocks = self._blocks(sides, sets, scratch)
                pairs = self._with_blocks(sides, sets, pairs, blocks, scratch / "corrected")
        sealed = Sealed(lambda: self._rows(sets, pairs, "test"), scratch / "test-opened.json")
        pool.make_room(fit_bytes(sides.reference.info, sides.candidate.info, pool.steps_device), what="the calibration")
        fit, stop = (self._rows(sets, pairs, name) for name in ("fit", "choose"))
        fitted = self._fit(sides, fit.first(request.tokens), stop, scratch, blocks, names)
        logits = Logits(sides.reference.head, sides.candidate.head, device=pool.steps_device)
        choice = self._choose(sides, sets, stop, logits, scratch, fitted)
        with watch.phase("test"):
            tested = self._test(
                sides,
                sets,
                pairs,
                floor,
                logits,
                choice,
                sealed.open(choice.frozen),
                Reductions(scratch / f"test-{choice.frozen[:16]}.part"),
            )
        context.check_cancelled()
        with watch.phase("statistics"):
            context.progress("statistics", 0, 1)
            report = build_report(tested, context)
        with watch.phase("report"):
            self._artifacts(tested)
            export_metrics(report, context)
            context.progress("report", 1, 1)
        if not tested.test.passed:
            context.log(f"profile {tested.profile.version} is not served: {'; '.join(tested.test.reasons)}"[:2000])
        return report

    # --- text and hidden states

    def _sets(self, reference: Side, dtype: str) -> tuple[Sets, CalibrationLoader]:
        """The sets, and the text of the recipe's steps, which shares no document with the test."""
        request = self._request
        self._context.progress("text", 0, 0)
        documents = self._documents(request.text, reference, dtype)
        source = request.tested
        tests = None if source is None else self._documents(source, reference, dtype)
        sets = draw(request, documents, tests, lambda chosen: self._windows(chosen, reference))
        texts = self._calibration(reference, dtype, documents if tests is None else tests)
        return replace(sets, warnings=(*sets.warnings, *self._text_warnings())), texts

    def _hidden(self, sides: Sides, sets: Sets) -> dict[str, _Pair]:
        """Of both models over every set, one model after the other: to alternate would cost swaps of weights."""
        found: dict[str, dict[str, Scored]] = {}
        for what, side in (("reference", sides.reference), ("candidate", sides.candidate)):
            found[what] = {name: self._score(sides, side, corpus, what) for name, corpus in sets.named()}
            self._check_head(side, sides.dtype, sets.fit, found[what]["fit"])
        return {name: _Pair(found["reference"][name], found["candidate"][name]) for name, _ in sets.named()}

    def _blocks(self, sides: Sides, sets: Sets, scratch: Path) -> Blocks:
        """The corrections after each block, from the attempt before if it had finished them."""
        context, file, pool = self._context, scratch / "blocks.safetensors", self._room.pool
        with self._watch.phase("blocks"):
            if not file.is_file():
                reference = sides.reference
                steps, item = self._request.refine_steps, reference.torch_dtype.itemsize
                needed = walk_bytes(reference.info, item, pool.steps_device)
                if steps:
                    refining = refine_bytes(
                        reference.info, sides.candidate.info, item, self._request.window, pool.steps_device
                    )
                    needed = max(needed, refining)
                pool.make_room(needed, what="the walk of the block corrections")
                corpora = [sets.fit, *self._own_text(reference, sides.dtype)]
                fitted: Blocks = resolve_name(FITTED[Blocks.KIND].fit)(
                    sides,
                    corpora,
                    scratch,
                    device=pool.steps_device,
                    refine_steps=steps,
                    progress=self._fitting_blocks,
                    log=context.log,
                    check_cancelled=context.check_cancelled,
                )
                fitted.save(file)
            return Blocks.load(file, torch.device("cpu"))

    def _fitting_blocks(self, phase: str, done: int, total: int) -> None:
        if phase == "refine":
            self._context.progress("refine", done, total)
        else:
            self._context.progress("blocks", done, total)

    def _own_text(self, reference: Side, dtype: str) -> list[Corpus]:
        """What the reference writes for the fit of the blocks: text of other kinds than the fitted domains."""
        tokens = self._request.written
        if not tokens:
            return []
        return [self._windows(self._documents(SelfText(source="self", tokens=tokens), reference, dtype), reference)]

    def _with_blocks(
        self, sides: Sides, sets: Sets, pairs: dict[str, _Pair], blocks: Blocks, folder: Path
    ) -> dict[str, _Pair]:
        """The same pairs, with what the engine makes of the candidate and its corrections."""
        candidate = sides.candidate
        attach(candidate.info.path, blocks, folder)
        corrected = Side(
            candidate.alias,
            inspect(folder),
            plan_fingerprint([candidate.weights, blocks.digest]),
            candidate.tokenizer,
            candidate.dtype,
        )
        return {
            name: replace(pairs[name], corrected=self._score(sides, corrected, corpus, "corrected"))
            for name, corpus in sets.named()
        }

    def _rows(self, sets: Sets, pairs: dict[str, _Pair], name: str) -> Rows:
        corpus = dict(sets.named())[name]  # type: ignore[index]
        pair = pairs[name]
        return gather(
            corpus,
            pair.reference.stored,
            pair.candidate.stored,
            None if pair.corrected is None else pair.corrected.stored,
            check_cancelled=self._context.check_cancelled,
        )

    # --- before the test

    def _fit(
        self, sides: Sides, fit: Rows, stop: Rows, scratch: Path, blocks: Blocks | None, names: Sequence[str]
    ) -> dict[str, Fitted]:
        device, seed = self._room.pool.steps_device, self._request.seed
        with self._watch.phase("fit"):
            fits = Fits(
                sides, fit, stop, blocks=blocks, folder=scratch, device=device, seed=seed, context=self._context
            )
            return fits.all(names)

    def _choose(
        self, sides: Sides, sets: Sets, stop: Rows, logits: Logits, scratch: Path, fitted: dict[str, Fitted]
    ) -> Choice:
        request, context = self._request, self._context
        with self._watch.phase("choose"):
            calibrators = served(
                {name: found.calibrator for name, found in fitted.items()}, logits.device, sides.candidate.torch_dtype
            )
            columns = mean_kl_columns(
                stop,
                logits,
                calibrators,
                progress=lambda done, total: context.progress("choose", done, total),
                check_cancelled=context.check_cancelled,
                reductions=Reductions(scratch / "choose.part"),
            )
            means = {name: float(np.mean(column)) for name, column in columns.items()}
            cost = {
                name: cost_microseconds(calibrator, logits, stop, check_cancelled=context.check_cancelled)
                for name, calibrator in calibrators.items()
            }
            raw = means.pop("")
            chosen = choose(
                [Candidate(name, kl, tensor_bytes(fitted[name].calibrator)) for name, kl in means.items()], raw
            )
            frozen = frozen_hash(
                {name: found.folder for name, found in fitted.items()},
                chosen.name,
                {"tolerance": request.tolerance, "seed": request.seed, "test": sets.test.fingerprint},
            )
        return Choice(fitted, means, cost, chosen.name, frozen)

    # --- the test

    def _test(
        self,
        sides: Sides,
        sets: Sets,
        pairs: dict[str, _Pair],
        floor: Floor,
        logits: Logits,
        choice: Choice,
        opened: Opened[Rows],
        reductions: Reductions,
    ) -> Tested:
        request, context = self._request, self._context
        proof = prove(
            choice,
            served(choice.calibrators(), logits.device, sides.candidate.torch_dtype),
            opened,
            logits,
            request=request,
            fitted_domains=sets.fitted_domains(),
            progress=lambda done, total: context.progress("test", done, total),
            check_cancelled=context.check_cancelled,
            reductions=reductions,
        )
        reference, found = pairs["test"].reference, choice.fitted[choice.chosen]
        record = profile_record(
            request, sides, sets, found, proof.test, engine=str(reference.engine.identity), job=context.job_id
        )
        return Tested(
            request=request,
            sides=sides,
            sets=sets,
            positions=opened.content.positions,
            raw=proof.raw,
            calibrated=proof.calibrated,
            floor=floor,
            test=proof.test,
            profile=ProfileStore(context.settings).put(found.calibrator, record),
            conditions=self._conditions(reference, precision="float32"),
        )

    def _artifacts(self, tested: Tested) -> None:
        """The values of every test token, so that each number can be checked."""
        corpus = tested.sets.test
        ids = [document.id for document in corpus.documents]
        domains = [document.domain for document in corpus.documents]
        for name, values in ((RAW_FILE, tested.raw), (CALIBRATED_FILE, tested.calibrated)):
            values.to_parquet(self._context.output / name, tested.positions, ids, domains)
