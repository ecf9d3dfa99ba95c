"""Recipe steps, the head and the fit of corrections on the device, beside the same on the CPU."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from app.recipes.base import Calibrated
from tests.support.dense_steps import DENSE, HEADS, RECIPE, case
from tests.support.tiny import make_tokenizer
from workers.calibration.fitting.blocks import fit_blocks
from workers.calibrators.blocks import Blocks
from workers.distributions.head import Head
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.callbacks import never_cancelled, no_progress
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore
from workers.text.documents import TextDocument
from workers.text.windows import make_windows

Tiny = Callable[..., Path]
Weights = dict[str, torch.Tensor]
# How far the weights may be from the CPU's, as a share of what the step changed: sums in float32 are rounded apart,
# which moves a weight to the next code, or over the border of a mask. A repair also trains in bf16. (On a CPU whose
# products were disturbed by their rounding, at most 0.001 and 0.08 were found.)
ALLOWED = 0.02
ALLOWED_OF = {"repair.lowrank": 0.25}
# It searches its rounding in bf16, and finds other codes that lose as much (disturbed as above, up to 5 % more).
SEARCHED = "quantize.dynamic"
ALLOWED_LOSS = 1.25


@pytest.fixture(scope="module")
def single(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`single(seed)`: a tiny model in float32."""

    def make(seed: int) -> Path:
        source, folder = tiny("llama", seed=seed, **HEADS), tmp_path_factory.getbasetemp() / f"single-{seed}"
        if not folder.exists():
            AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).save_pretrained(folder)
            make_tokenizer().save_pretrained(folder)
        return folder

    return make


def weights(folder: Path) -> Weights:
    found: Weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def distance(one: Weights, other: Weights) -> float:
    """Of two checkpoints; a tensor of `one` that `other` lacks, or has in another shape, counts whole."""
    total = 0.0
    for name, tensor in one.items():
        same = name in other and other[name].shape == tensor.shape
        total += float((tensor.double() - (other[name].double() if same else 0.0)).square().sum())
    return total**0.5


def text(_: Calibrated) -> CalibrationText:
    """Sixteen tokens per input of the widest layer: second moments that rounding changes little."""
    return CalibrationText(tokens(0, 64), "0" * 64, documents=64, asked=64)


def tokens(seed: int, windows: int) -> torch.Tensor:
    return torch.randint(2, 300, (windows, 32), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def log_p(folder: Path) -> torch.Tensor:
    """On text that no step sees, in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found: torch.Tensor = model(tokens(5, 32)).logits.double().log_softmax(-1)
    return found


def test_a_searched_rounding_loses_what_it_loses_on_the_cpu(
    device: str, single: Callable[..., Path], tmp_path: Path
) -> None:
    """KL from the source, in nats per token."""
    info = inspect(single(0))
    recipe, _ = case(info, SEARCHED, other=single(9), scratch=tmp_path)
    source, lost = log_p(info.path), []
    for at, place in enumerate(("cpu", device)):
        store = CheckpointStore(tmp_path / f"store-{at}", 10**9)
        with apply(info, recipe, device=place, store=store, calibration=text) as modified:
            lost.append(float((source.exp() * (source - log_p(modified.path))).sum(-1).mean()))
    assert 0 < lost[1] <= ALLOWED_LOSS * lost[0]


@pytest.mark.parametrize("type_", [kind for kind in DENSE if kind != SEARCHED])
def test_a_step_gives_the_weights_that_it_gives_on_the_cpu(
    device: str, single: Callable[..., Path], tmp_path: Path, type_: str
) -> None:
    info = inspect(single(0))
    recipe, others = case(info, type_, other=single(9), scratch=tmp_path)
    stores = [CheckpointStore(tmp_path / name, 10**9) for name in ("here", "there")]

    def made(length: int, place: str, store: CheckpointStore) -> Weights:
        with apply(info, recipe[:length], device=place, store=store, calibration=text, others=others) as modified:
            return weights(modified.path)

    here, there = made(len(recipe), "cpu", stores[0]), made(len(recipe), device, stores[1])
    changed = distance(here, made(len(recipe) - 1, "cpu", stores[0]))
    assert there.keys() == here.keys()
    assert distance(there, here) <= ALLOWED_OF.get(type_, ALLOWED) * changed


def test_a_head_gives_the_logits_that_it_gives_on_the_cpu(device: str, tiny: Tiny) -> None:
    """In float32, of a head with a soft cap: each differs by less than 10 parts in a million of the largest."""
    head = Head.load(tiny("gemma2"))
    hidden_TD = torch.randn(300, head.hidden_size, generator=torch.Generator().manual_seed(0)).bfloat16()
    here_TV = head.logits(hidden_TD)
    there_TV = head.on(device, torch.float32).logits(hidden_TD.to(device))
    assert there_TV.device.type == device
    assert float((there_TV.cpu() - here_TV).abs().max()) <= 1e-5 * float(here_TV.abs().max())


def test_corrections_after_each_block_are_those_that_are_fitted_on_the_cpu(
    device: str, single: Callable[..., Path], tmp_path: Path
) -> None:
    """In float32: their maps and biases differ by at most a thousandth."""
    documents = [TextDocument(str(at), "prose", text="seven eight nine ten " * 4) for at in range(9)]
    corpus = make_windows(documents, make_tokenizer(), 23)
    info = inspect(single(0))
    coarse = RECIPE.validate_python([{"type": "quantize.rtn", "bits": 3, "group_size": 32}])
    found: list[Blocks] = []
    with apply(info, coarse, device="cpu", store=CheckpointStore(tmp_path / "store", 10**9)) as wounded:
        pair = [SimpleNamespace(info=inspect(path), torch_dtype=torch.float32) for path in (info.path, wounded.path)]
        sides: Any = SimpleNamespace(reference=pair[0], candidate=pair[1])
        for at, place in enumerate(("cpu", device)):
            scratch = tmp_path / f"scratch-{at}"
            scratch.mkdir()
            given: Any = {"device": place, "progress": no_progress, "check_cancelled": never_cancelled}
            found.append(fit_blocks(sides, corpus, scratch, **given))
    here, there = found
    assert here
    assert list(there) == list(here)
    for block, one in here.items():
        other = there[block]
        for mine, theirs in ((one.up_DR @ one.down_RD, other.up_DR @ other.down_RD), (one.bias_D, other.bias_D)):
            assert float((theirs - mine).norm()) <= 1e-3 * float(mine.norm())
