"""Records the divergences of a real deployment's requests, once, for `tests.bench.online_requests`: no text.

`python -m tests.bench.online_record MODEL DATA`: the demo model, and a folder that holds `mt_bench/`, `gsm8k/` and
`humaneval/` as they are published. The candidate is the model at 4 bits (round to nearest, groups of 64), without a
correction; a worse one has 3 bits. Each answers the prompts at temperature 1, and the shadow's own code scores what it
wrote. People's text is that of the shipped evaluation documents, scored as if the deployment had written it.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from workers.engine import environment

if __name__ == "__main__":
    environment.start_with_engine_environment()  # before torch is imported

from app.contracts.deployment import IDENTITY, Deployment, DeploymentState, ShadowSample
from app.contracts.request import CandidateModel, ReferenceModel
from app.models.registry import register
from app.settings import Settings
from tests.bench.online_requests import PEOPLE, Recorded, write
from workers.calibration.online.models import Models
from workers.calibration.online.rescore import Rescorer, Versions
from workers.calibration.profiles import ProfileStore
from workers.engine.pool import EnginePool
from workers.engine.sampling import Sampler
from workers.text.shipped import load_shipped
from workers.text.tokenization import encode, load_tokenizer

BITS: Final = (4, 3)
OF_A_SOURCE: Final = 120  # prompts
PROMPT: Final = 48  # tokens of a document that is continued
ANSWER: Final = 128  # tokens
LONGEST: Final = 1024  # tokens of a document of people
BATCH: Final = 16  # requests scored at once
Ids = list[int]


def questions(data: Path) -> Iterator[tuple[str, str]]:
    """Source and text of what a chat is asked."""
    for file in ("question", "vicuna_question"):
        for line in _lines((data / "mt_bench" / f"{file}.jsonl").read_text(encoding="utf-8")):
            yield "mt_bench", json.loads(line)["turns"][0]
    for line in _lines((data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8")):
        yield "gsm8k", json.loads(line)["question"]
    with gzip.open(data / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in _lines(stream.read()):
            yield "humaneval", "Complete this function.\n\n" + json.loads(line)["prompt"]


def _lines(text: str) -> list[str]:
    return text.strip().splitlines()


def prompts(model: Path, data: Path) -> list[tuple[str, Ids]]:
    """Source and tokens: chats by the model's template, and beginnings of shipped documents."""
    tokenizer = load_tokenizer(model)
    by_source: dict[str, list[Ids]] = {}
    for source, text in questions(data):
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )
        by_source.setdefault(source, []).append(encode(tokenizer, str(chat)).tolist())
    by_source["documents"] = [
        encode(tokenizer, document.text)[:PROMPT].tolist()
        for document in load_shipped("calibration", chat_template=False)
        if document.text
    ]
    return [(source, tokens) for source, many in by_source.items() for tokens in many[:OF_A_SOURCE]]


def record(model: Path, data: Path, home: Path) -> Iterator[Recorded]:
    """Requests to each candidate, then the text of people under the first."""
    settings = Settings(home=home)
    register(settings.models_file, "demo", model)
    asked = prompts(model, data)
    tokenizer = load_tokenizer(model)
    documents = [
        encode(tokenizer, document.text)[:LONGEST].tolist()
        for document in load_shipped(chat_template=False)
        if document.text
    ]
    for bits in BITS:
        models = Models(deployment(bits), settings)
        rescorer = Rescorer(models, ProfileStore(settings), home, expiry_s=3600.0)
        with Sampler(models.sides.candidate.info, pool=EnginePool(settings)) as sampler:
            answers = sampler.sample([tokens for _, tokens in asked], ANSWER, seed=1, temperature=1.0)
        requests = [(source, prompt, answer) for (source, prompt), answer in zip(asked, answers, strict=True)]
        if bits == BITS[0]:
            requests += [(PEOPLE, tokens[:1], tokens[1:]) for tokens in documents]
        yield from scored(rescorer, bits, requests)
        models.close()


def scored(rescorer: Rescorer, bits: int, requests: Sequence[tuple[str, Ids, Ids]]) -> Iterator[Recorded]:
    """By the shadow; what was answered with nothing has no divergence."""
    for start in range(0, len(requests), BATCH):
        some = {f"r{index}": one for index, one in enumerate(requests[start : start + BATCH]) if one[2]}
        samples = [
            ShadowSample(id=name, prompt=tuple(prompt), output=tuple(output), version=IDENTITY, at=time.time())
            for name, (_, prompt, output) in some.items()
        ]
        for found in rescorer.score(samples, Versions()).scored:
            yield Recorded(bits, some[found.id][0], found.tokens, found.served)


def deployment(bits: int) -> Deployment:
    """Of the demo model at so many bits."""
    recipe = [{"type": "quantize.rtn", "bits": bits, "group_size": 64, "symmetric": False}]
    return Deployment(
        id="dep_1",
        name="demo",
        model=CandidateModel.model_validate({"model": "demo", "recipe": recipe}),
        reference=ReferenceModel(model="demo"),
        calibration="off",
        shadow_rate=1.0,
        shadow_tokens_per_second=1.0,
        drift_threshold=None,
        alpha=0.01,
        replicas=1,
        max_model_len=None,
        state=DeploymentState.READY,
        created_at=0.0,
        updated_at=0.0,
    )


def main(model: Path, data: Path) -> None:
    """Records, and writes the file."""
    with tempfile.TemporaryDirectory() as home:
        write(list(record(model, data, Path(home))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
