"""One application of a recipe: its stages in turn, from the last one that is in the store on."""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.models.adapters import CONFIG, WEIGHTS
from app.models.calibration_size import TOKENS_PER_INPUT, sized, widest_input
from app.models.checkpoint import CHANNELS, CheckpointInfo, fingerprint, inspect
from app.models.modules import Weight
from app.models.recipes import canonical_json, recipe_fingerprint
from app.models.simulation import section_in
from app.models.steps import check_one, check_recipe
from app.recipes.base import Calibrated, Step
from app.recipes.notices import StepNotice
from app.recipes.recipe import Recipe
from workers.surgery.account import model_storage, nominal_share, sorted_changes, totals
from workers.surgery.calibration_text import CalibrationText, CalibrationTexts
from workers.surgery.callbacks import CheckCancelled, MakeRoom, Progress
from workers.surgery.files import copy_companions
from workers.surgery.manifest import MANIFEST, Manifest, StepRecord, TensorChange
from workers.surgery.modified import Modified, opened, untouched
from workers.surgery.reading import TensorReader, open_tensors
from workers.surgery.safetensors_writer import plan_shards, write_shards
from workers.surgery.step_run import StepRun, WholeStep
from workers.surgery.steps import runner_of
from workers.surgery.store import CheckpointStore
from workers.surgery.streamed import Streamed

# The folder of what a step takes beside the checkpoint, or None.
Others = Callable[[Step], Path | None]
# Part of every key: raise it when the same recipe gives other weights than before, or shows more of them.
SURGERY_VERSION = 5
# Part of every key, too: raise it when manifests have other fields than before.
MANIFEST_VERSION = 3
POINTER = "/candidate/recipe"
# What is to blame on the step, not on the checkpoint or the machine.
_OF_A_STEP = frozenset(
    {ErrorCode.RECIPE_NOT_APPLICABLE, ErrorCode.CALIBRATION_TOO_SHORT, ErrorCode.ACTIVATIONS_NOT_FINITE}
)


@dataclass(frozen=True)
class Stage:
    """Steps `first` to `end` (exclusive) of a recipe, done at once."""

    first: int
    end: int
    streamed: bool


def stages(recipe: Recipe) -> Iterator[Stage]:
    """The stages of a recipe in turn: neighbouring steps that change one weight at a time are one, every other step is
    one of its own."""
    kinds = [(index, step.is_streamed) for index, step in enumerate(recipe)]
    for streamed, run in groupby(kinds, key=lambda pair: pair[1]):
        indices = [index for index, _ in run]
        if streamed:
            yield Stage(indices[0], indices[-1] + 1, streamed=True)
        else:
            yield from (Stage(index, index + 1, streamed=False) for index in indices)


class Application:
    """One application of a recipe."""

    def __init__(
        self,
        source: CheckpointInfo,
        source_fingerprint: str,
        reference: CheckpointInfo,
        recipe: Recipe,
        device: str,
        store: CheckpointStore,
        calibration: CalibrationTexts,
        others: Others,
        make_room: MakeRoom,
        progress: Progress,
        check_cancelled: CheckCancelled,
        shard_bytes: int,
    ) -> None:
        self._source, self._source_fingerprint = source, source_fingerprint
        self._reference, self._device = reference, torch.device(device)
        self._recipe, self._store = recipe, store
        self._texts, self._make_room = calibration, make_room
        self._others = {index: path for index, step in enumerate(recipe) if (path := others(step)) is not None}
        self._progress, self._check_cancelled = progress, check_cancelled
        self._shard_bytes = shard_bytes
        self._stages = list(stages(recipe))
        self._steps: dict[int, WholeStep] = {
            stage.first: runner_of(recipe[stage.first])(recipe[stage.first])
            for stage in self._stages
            if not stage.streamed
        }

    @property
    def key(self) -> str:
        """Names all that decides what the recipe gives, in 64 hex digits: the store's key of it; of the recipe without
        steps the fingerprint of the source. Raises what the text sources of the steps raise."""
        return self._key(self._stages[-1].end) if self._stages else self._source_fingerprint

    def stored(self) -> Modified | None:
        """What the whole recipe, which has steps, gave if it is in the store. Raises what the text sources raise."""
        entry = self._store.get(self.key)
        return None if entry is None else opened(entry)

    def run(self) -> Modified:
        """From the last stage that is in the store on. The empty recipe gives the source itself.

        Raises `HemostatError`: what the checks of the steps and the text sources raise, CHECKPOINT_NOT_FINITE for a
        source with NaN or infinity in any tensor, ACTIVATIONS_NOT_FINITE, DISK_FULL, and what `make_room` raises.
        """
        if not self._recipe:
            manifest = untouched(self._source, self._source_fingerprint)
            return Modified(self._source.path, self._source_fingerprint, manifest, built=False)
        keys = [self._key(stage.end) for stage in self._stages]
        begin, current = 0, None
        for index in reversed(range(len(keys))):
            entry = self._store.get(keys[index])
            if entry is not None:
                begin, current = index + 1, opened(entry)
                break
        else:
            # refused before an hour is spent
            check_recipe(self._source, self._recipe, pointer=POINTER, reference=self._reference)
        scratch = self._scratch(begin)
        for index in range(begin, len(self._stages)):
            before = current
            try:
                current = self._build(self._stages[index], keys[index], before, scratch[index - begin])
            finally:
                if before is not None:
                    before.release()
        if current is None:
            raise RuntimeError("a recipe has at least one stage")
        return current

    def _scratch(self, begin: int) -> list[int]:
        """Bytes of disk that each stage from `begin` on needs beside its checkpoint. A later one has the checkpoint of
        the stage before beside it; the first is refused if that will not fit."""
        info = self._source
        state_bytes = info.hidden_size * (4 if info.scheme == "f32" else 2)
        needed = [
            sum(sized(step, info).scratch_bytes(info.parameters, info.layers, state_bytes) for step in steps)
            for steps in (self._recipe[stage.first : stage.end] for stage in self._stages[begin:])
        ]
        if len(needed) > 1:
            needed[0] = max(needed[0], info.bytes + max(needed[1:]))
        return needed

    def _key(self, end: int) -> str:
        done = self._recipe[:end]
        named: dict[str, object] = {
            "source": self._source_fingerprint,
            "recipe": canonical_json(done),
            "surgery": SURGERY_VERSION,
            "manifest": MANIFEST_VERSION,
        }
        versions = {str(index): step.version for index, step in self._steps.items() if index < end}
        texts = {
            str(index): self._text(index, step).fingerprint
            for index, step in enumerate(done)
            if isinstance(step, Calibrated) and step.reads_text
        }
        beside = {
            str(index): _folder_fingerprint(path, self._check_cancelled)
            for index, path in self._others.items()
            if index < end
        }
        if beside:
            named["others"] = beside
        if versions:
            named["versions"] = versions
        if texts:
            named["calibration"] = texts
            if self._reference is not self._source:
                named["reference"] = fingerprint(self._reference.path, check_cancelled=self._check_cancelled)
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()

    def _text(self, index: int, step: Calibrated) -> CalibrationText:
        with _blamed(f"{POINTER}/{index}/calibration"):
            return self._texts(sized(step, self._source))

    def _build(self, stage: Stage, key: str, before: Modified | None, scratch: int) -> Modified:
        source = self._source if before is None else inspect(before.path)
        steps = self._recipe[stage.first : stage.end]
        weights: list[list[Weight]] = []
        for index, step in enumerate(steps, stage.first):
            weights.append(check_one(source, step, pointer=f"{POINTER}/{index}"))

        def build(folder: Path) -> None:
            device = self._device
            self._make_room(source, self._reference, steps)
            with open_tensors(source, device) as reader, self._opened_base(before, reader) as base_reader:
                began = time.monotonic()
                known = {} if before is None else {change.name: change for change in before.manifest.tensors}
                records = () if before is None else before.manifest.steps
                origins = {} if before is None else before.manifest.origins
                copy_companions(source.path, folder)
                if stage.streamed:
                    streamed = Streamed(
                        source,
                        self._source,
                        steps,
                        stage.first,
                        weights,
                        before=known,
                        origins=origins,
                        pointer=POINTER,
                        progress=self._progress,
                        check_cancelled=self._check_cancelled,
                    )
                    shards = plan_shards(streamed.planned(), shard_bytes=self._shard_bytes)
                    order = [planned.name for shard in shards for planned in shard]
                    with device:  # new tensors of the steps are made there
                        write_shards(folder, shards, streamed.tensors(reader, base_reader, order))
                    changes, record = streamed.changes, self._record(stage, began)
                else:
                    with tempfile.TemporaryDirectory(dir=folder, prefix=".scratch-") as working:
                        (step,) = steps
                        text = None
                        if isinstance(step, Calibrated) and step.reads_text:
                            text = self._text(stage.first, step)
                        context = StepRun(
                            source,
                            base=self._source,
                            reference=self._reference,
                            step=step,
                            index=stage.first,
                            weights=weights[0],
                            calibration=text,
                            other=self._others.get(stage.first),
                            reader=reader,
                            base_reader=base_reader,
                            scratch=Path(working),
                            before=known,
                            progress=self._progress,
                            check_cancelled=self._check_cancelled,
                            recipe=self._recipe,
                            origins=origins,
                        )
                        if text is not None:
                            _warn_of_text(context, text)
                        with _blamed(f"{POINTER}/{stage.first}"), device:
                            self._steps[stage.first].run(context)
                        context.write(folder, self._shard_bytes)
                    (folder / "config.json").write_text(json.dumps(context.config, indent=2) + "\n")
                    changes, record = context.changes, self._record(stage, began, context, text)
                    origins = {name: origin for name, origin in context.origins.items() if origin != name}
                self._finish(folder, key, stage, changes, (*records, record), origins)

        return opened(
            self._store.get_or_build(
                key, build, expected_bytes=source.bytes, scratch_bytes=scratch, check_cancelled=self._check_cancelled
            )
        )

    def _opened_base(self, before: Modified | None, reader: TensorReader) -> AbstractContextManager[TensorReader]:
        """The source of the recipe. The first stage reads it already: files that are mapped twice count twice."""
        return nullcontext(reader) if before is None else open_tensors(self._source, self._device)

    def _record(
        self, stage: Stage, began: float, context: StepRun | None = None, text: CalibrationText | None = None
    ) -> StepRecord:
        return StepRecord(
            steps=tuple(range(stage.first, stage.end)),
            types=tuple(step.type for step in self._recipe[stage.first : stage.end]),
            seconds=round(time.monotonic() - began, 3),
            calibration_fingerprint=text.fingerprint if text else None,
            calibration_documents=text.documents if text else None,
            calibration_tokens=text.tokens_NL.numel() if text else None,
            warnings=tuple(context.warnings) if context else (),
            figures=dict(context.figures) if context else {},
        )

    def _finish(
        self,
        folder: Path,
        key: str,
        stage: Stage,
        changes: dict[str, TensorChange],
        records: Sequence[StepRecord],
        origins: dict[str, str | None],
    ) -> None:
        done = self._recipe[: stage.end]
        result = fingerprint(folder, check_cancelled=self._check_cancelled)
        info = inspect(folder)
        listed = sorted_changes(changes.values())
        bits, sparsity, error = totals(listed)
        model_bits, size = model_storage(info, listed)
        manifest = Manifest(
            key=key,
            source_fingerprint=self._source_fingerprint,
            fingerprint=result,
            recipe=tuple(json.loads(canonical_json(done))),
            recipe_fingerprint=recipe_fingerprint(done),
            tensors=listed,
            steps=tuple(records),
            origins=origins,
            scheme="simulated" if info.quantization is None else info.scheme,
            bits_per_weight=bits,
            sparsity=sparsity,
            nominal_sparsity=nominal_share(listed),
            reconstruction_error=error,
            model_bits_per_weight=model_bits,
            model_nominal_bytes=size,
            file_bytes=info.bytes,
            seconds=round(sum(record.seconds for record in records), 3),
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")


def _folder_fingerprint(path: Path, check_cancelled: CheckCancelled) -> str:
    if (path / CONFIG).is_file():  # an adapter
        digest = hashlib.sha256()
        for name in (CONFIG, WEIGHTS, CHANNELS):
            check_cancelled()
            with suppress(FileNotFoundError), (path / name).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()
    return fingerprint(path, check_cancelled=check_cancelled)


@contextmanager
def _blamed(pointer: str) -> Iterator[None]:
    """Gives refusals of what a step is asked to do the pointer of the step, where they have none."""
    try:
        yield
    except HemostatError as error:
        if error.code in _OF_A_STEP and not error.pointer:
            error.pointer = pointer
        raise


def _warn_of_text(context: StepRun, text: CalibrationText) -> None:
    """Says where the text, or how it is run, is less than what was asked for."""
    windows, length = text.tokens_NL.shape
    if windows < text.asked > getattr(context.step, "calibration_windows", text.asked):
        enough = TOKENS_PER_INPUT * widest_input(context.base)
        tokens = text.tokens_NL.numel()
        context.warn(StepNotice.SHORT_FOR_WIDEST_LAYER(tokens=tokens, enough=enough, each=TOKENS_PER_INPUT))
    elif windows < text.asked:
        context.warn(StepNotice.SHORT_CALIBRATION_TEXT(windows=windows, window=length, asked=text.asked))
    most = context.source.max_position
    if most is not None and length > most:
        context.warn(StepNotice.LONGER_THAN_CONTEXT(window=length, context=most))
    section = section_in(context.source.config)
    if section is not None and section.fakes:
        context.warn(StepNotice.WITHOUT_RUNTIME_QUANTIZATION())
