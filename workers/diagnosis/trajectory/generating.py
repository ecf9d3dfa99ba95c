"""The texts that every model writes: generated once, kept one by one, found again by the attempt after a lost one.

All decoders of a model run one after the other, those of vLLM first, so that its weights are loaded once for each of
the two engines. A text belongs to weights, engine, decoder, prompt, length and seed: a candidate whose weights are the
reference's is not run again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.contracts.decoding import Decoder, rows_of, runs_in_vllm
from app.contracts.errors import ErrorCode, HemostatError
from workers.decoding.generator import STREAMS, Generator
from workers.decoding.model import Continuation
from workers.diagnosis.trajectory.prompts import Prompt
from workers.engine.device import identity
from workers.engine.pool import resolve_dtype
from workers.engine.room import EngineRoom
from workers.measuring.plan import plan_fingerprint
from workers.measuring.sides import Side
from workers.process.handler import JobContext
from workers.text.storage import read_checked, write_checked

PHASE: Final = "generate"
_NAME: Final = "{:06d}.json"
# What a checkpoint may be that an engine does not take.
_OF_THE_MODEL: Final = frozenset({ErrorCode.RECIPE_NOT_APPLICABLE, ErrorCode.CHECKPOINT_UNSUPPORTED})


@dataclass
class Written:
    """Texts by decoder's name, one per prompt."""

    texts: dict[str, list[Continuation]] = field(default_factory=dict)


class TextWriter:
    """Lets models write. `length` is the most tokens of a prompt and its text, `tokens` those of a text."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        decoders: Sequence[Decoder],
        *,
        models: int,
        tokens: int,
        length: int,
        seed: int,
        dtype: str,
        room: EngineRoom,
        context: JobContext,
    ) -> None:
        self._prompts, self._decoders = prompts, decoders
        self._tokens, self._length, self._seed, self._dtype = tokens, length, seed, dtype
        self._room, self._context = room, context
        self._total = models * len(decoders) * len(prompts) * tokens
        self._done = 0
        digest = hashlib.sha256(json.dumps([list(prompt.tokens) for prompt in prompts]).encode()).hexdigest()
        self._protocol = [digest, str(tokens), str(length), str(seed)]

    def write(self, side: Side, *, pointer: str) -> Written:
        """A model's texts by every decoder. `pointer` is the model's in the request, for what it cannot do.

        Raises what `Generator` raises, NONFINITE_LOGITS if a text holds a token outside the vocabulary.
        """
        folders: dict[str, Path] = {decoder.name: self._folder(side, decoder) for decoder in self._decoders}
        found: dict[str, dict[int, Continuation]] = {name: self._kept(folder) for name, folder in folders.items()}
        missing = [decoder for decoder in self._decoders if len(found[decoder.name]) < len(self._prompts)]
        self._advance(self._tokens * sum(map(len, found.values())))
        if missing:
            try:
                self._run(side, sorted(missing, key=lambda decoder: not runs_in_vllm(decoder)), folders, found)
            except HemostatError as error:
                if error.code in _OF_THE_MODEL and not error.pointer:
                    error.pointer = f"{pointer}/model"
                raise
        return Written({name: [texts[number] for number in range(len(self._prompts))] for name, texts in found.items()})

    def _run(
        self,
        side: Side,
        decoders: Sequence[Decoder],
        folders: dict[str, Path],
        found: dict[str, dict[int, Continuation]],
    ) -> None:
        context = self._context
        with Generator(
            side.info,
            pool=self._room.pool,
            length=self._length,
            dtype=self._dtype,
            check_cancelled=context.check_cancelled,
        ) as generator:
            for decoder in decoders:
                size = max(1, STREAMS // rows_of(decoder))
                there = found[decoder.name]
                # Groups do not depend on what is there, so that a text is written in the same company each time, save
                # where a worker was lost between two files of one group.
                for start in range(0, len(self._prompts), size):
                    group = range(start, min(start + size, len(self._prompts)))
                    lacking = [number for number in group if number not in there]
                    if not lacking:
                        continue
                    context.check_cancelled()
                    texts = generator.run(
                        decoder,
                        [self._prompts[number].tokens for number in lacking],
                        max_tokens=self._tokens,
                        seed=self._seed,
                        keys=lacking,
                        tick=self._advance,
                    )
                    made = 0
                    for number, text in zip(lacking, texts, strict=True):
                        _check(text, side)
                        file = folders[decoder.name] / _NAME.format(number)
                        write_checked(file, {"tokens": list(text.tokens), "ended": text.ended})
                        there[number] = text
                        made += len(text.tokens)
                    context.observe("tokens_scored", made, role=PHASE)
                    # Texts that ended early have no more tokens to come.
                    self._advance(len(lacking) * self._tokens - made)

    def _advance(self, tokens: int) -> None:
        self._done += tokens
        self._context.progress(PHASE, min(self._done, self._total), self._total)

    def _kept(self, folder: Path) -> dict[int, Continuation]:
        """The texts that an earlier attempt wrote, by prompt."""
        kept = {number: read_checked(folder / _NAME.format(number)) for number in range(len(self._prompts))}
        return {
            number: Continuation(tuple(one["tokens"]), one["ended"]) for number, one in kept.items() if one is not None
        }

    def _folder(self, side: Side, decoder: Decoder) -> Path:
        """Where a model's texts by a decoder are kept: its name is of all that decides them."""
        pool = self._room.pool
        engine = str(identity(pool.device, resolve_dtype(self._dtype), pool.settings, compiled=False))
        plan = plan_fingerprint([side.weights, engine, decoder.model_dump_json(), *self._protocol])
        return self._context.scratch / "texts" / plan[:32]


def _check(text: Continuation, side: Side) -> None:
    if not text.tokens or not 0 <= min(text.tokens) <= max(text.tokens) < side.info.vocabulary:
        raise HemostatError(
            ErrorCode.NONFINITE_LOGITS,
            f"{side.alias} wrote a text that is empty or holds a token outside its vocabulary",
            hint="its logits may not be finite: `hemostat compare` shows at which positions",
        )
