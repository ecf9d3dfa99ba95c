from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from tests.support.attention import attention_of
from tests.support.second_device import second_device
from tests.support.tiny import make_tokenizer
from tests.unit.workers.mitigation.repair.support import RTN, operate, windows
from workers.calibration.fitting import refine
from workers.calibration.fitting.blocks import BlockFit, Moments, fit_blocks, ridge
from workers.calibration.fitting.fit_text import FitText
from workers.calibrators.blocks import NO_LIMIT, BlockCorrection, Blocks, rms_of
from workers.mitigation.optimizer import Rate
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.callbacks import never_cancelled, no_progress
from workers.surgery.dequantize import dequantize, open_plain
from workers.surgery.store import CheckpointStore
from workers.text.documents import TextDocument
from workers.text.windows import Corpus, make_windows

Tiny = Callable[..., Path]
Array = NDArray[np.float64]
N, L, D = 32, 32, 64
RANK, SHARE = 8, 1.0
# Of sixteen documents of two windows each the last two decide.
HELD = torch.arange(N) >= 28


def text(lengths: tuple[int, ...] = (L,)) -> FitText:
    """Random tokens; of windows that are filled up no position beyond their length counts."""
    weight_NL = torch.zeros(N, L)
    for window in range(N):
        weight_NL[window, 1 : lengths[window % len(lengths)]] = 1.0
    return FitText(windows(N, L), weight_NL, torch.arange(N) // 2)


@contextmanager
def fitting(reference: Path, candidate: Path, scratch: Path, given: FitText, **options: Any) -> Iterator[BlockFit]:
    scratch.mkdir(exist_ok=True)
    with ExitStack() as stack:
        both = (stack.enter_context(open_plain(inspect(path), "cpu")) for path in (reference, candidate))
        theirs, ours = (Skeleton(info, read, device="cpu", dtype=torch.float32) for info, read in both)
        yield BlockFit(theirs, ours, given, scratch, **options)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def fitted(reference: Path, candidate: Path, scratch: Path, given: FitText, **options: Any) -> Blocks:
    with fitting(reference, candidate, scratch, given, **options) as fit:
        return fit.run()


def corrected(correction: BlockCorrection, h_NLD: torch.Tensor) -> torch.Tensor:
    return correction(h_NLD.flatten(0, 1)).view_as(h_NLD)


@torch.no_grad()
def streams(path: Path, tokens_NL: torch.Tensor, corrections: Mapping[int, BlockCorrection]) -> list[torch.Tensor]:
    """By transformers: what leaves each block, corrected, and last what leaves the final norm."""
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=attention_of(path))
    seen: list[torch.Tensor] = []
    for block, layer in enumerate(model.model.layers):

        def correct(_: Any, __: Any, leaving: Any, block: int = block) -> Any:
            h_NLD = leaving[0] if isinstance(leaving, tuple) else leaving
            seen.append(corrected(corrections[block], h_NLD) if block in corrections else h_NLD)
            return (seen[-1], *leaving[1:]) if isinstance(leaving, tuple) else seen[-1]

        layer.register_forward_hook(correct)
    model.model.norm.register_forward_hook(lambda _, __, leaving: seen.append(leaving))
    model(input_ids=tokens_NL, use_cache=False)
    return seen


def rows(h_NLD: torch.Tensor, wanted_NLD: torch.Tensor, where_NL: torch.Tensor) -> tuple[Array, Array]:
    """x and y of the positions of a mask."""
    h_TD, wanted_TD = (one[where_NL].numpy().astype(np.float64) for one in (h_NLD, wanted_NLD))
    rms_T1 = np.sqrt((h_TD**2).mean(1, keepdims=True) + 1e-6)
    return h_TD / rms_T1, (wanted_TD - h_TD) / rms_T1


def expected(x_TD: Array, y_TD: Array) -> tuple[Array, Array]:
    """(D, D) and bias by the normal equations of the centred regression, cut by the singular values of M C^½."""
    x_mean_D, y_mean_D = x_TD.mean(0), y_TD.mean(0)
    x_TD, y_TD = x_TD - x_mean_D, y_TD - y_mean_D
    covariance_DD = x_TD.T @ x_TD / len(x_TD)
    damped_DD = covariance_DD + SHARE * np.trace(covariance_DD) / D * np.eye(D)
    map_DD = np.linalg.solve(damped_DD, x_TD.T @ y_TD / len(x_TD)).T
    values_D, vectors_DD = np.linalg.eigh(covariance_DD)
    root_DD = vectors_DD * np.sqrt(np.maximum(values_D, 0)) @ vectors_DD.T
    left_DR = np.linalg.svd(map_DD @ root_DD)[0][:, :RANK]
    map_DD = left_DR @ left_DR.T @ map_DD
    return map_DD, y_mean_D - map_DD @ x_mean_D


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_corrections_are_those_of_the_normal_equations_block_after_block(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    reference, given = tiny(kind), text((32, 20, 27))
    with operate(reference, tmp_path / "store", RTN) as wounded:
        with fitting(reference, wounded.path, tmp_path / "scratch", given, solve=ridge(RANK, (SHARE,))) as fit:
            found = fit.run()
            ends_NLD = fit.stream.normed().read(0, N)
        theirs = streams(reference, given.tokens_NL, {})
        counted_NL, held_N1 = given.weight_NL > 0, HELD[:, None]
        corrections: dict[int, BlockCorrection] = {}
        for block in range(3):
            h_NLD = streams(wounded.path, given.tokens_NL, corrections)[block]
            map_DD, bias_D = expected(*rows(h_NLD, theirs[block], counted_NL & ~held_N1))
            x_TD, y_TD = rows(h_NLD, theirs[block], counted_NL & held_N1)
            helps = ((y_TD - x_TD @ map_DD.T - bias_D) ** 2).sum() < (y_TD**2).sum()
            assert helps == (block in found)
            if helps:
                corrections[block] = found[block]
                ours_DD = (found[block].up_DR @ found[block].down_RD).numpy()
                assert np.linalg.norm(ours_DD - map_DD) < 2e-3 * np.linalg.norm(map_DD)
                assert np.linalg.norm(found[block].bias_D.numpy() - bias_D) < 2e-3 * np.linalg.norm(bias_D)
        assert corrections
        torch.testing.assert_close(
            ends_NLD[counted_NL], streams(wounded.path, given.tokens_NL, found)[-1][counted_NL], rtol=1e-3, atol=1e-3
        )


def test_a_candidate_that_is_the_reference_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    assert not fitted(tiny(), tiny(), tmp_path, text())


def test_a_planted_error_of_the_corrections_own_form_is_removed(tiny: Tiny, tmp_path: Path) -> None:
    draws = torch.Generator().manual_seed(3)
    down_RD, up_DR, bias_D = (torch.randn(*shape, generator=draws) / 8 for shape in ((2, D), (D, 2), (D,)))
    planted = BlockCorrection(down_RD, up_DR, bias_D, torch.tensor(NO_LIMIT))
    given = text()
    with fitting(tiny(), tiny(), tmp_path, given, solve=ridge(2, (1e-6,))) as fit:
        fit.reference.skeleton.layers[1].register_forward_hook(lambda _, __, leaving: corrected(planted, leaving))
        found = fit.run()
    assert 0 not in found
    torch.testing.assert_close(found[1].up_DR @ found[1].down_RD, up_DR @ down_RD, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(found[1].bias_D, bias_D, rtol=1e-2, atol=1e-4)
    wanted, healed = (streams(tiny(), given.tokens_NL, one)[-1] for one in ({1: planted}, found))
    torch.testing.assert_close(healed, wanted, rtol=1e-2, atol=1e-2)


def test_no_correction_makes_the_documents_that_decide_worse(tiny: Tiny, tmp_path: Path) -> None:
    """From a hundred positions a map of 64 × 64 numbers follows each of them."""
    reference, given = tiny(), text((5,))
    given.weight_NL[HELD, 1:] = 1.0
    with operate(reference, tmp_path / "store", RTN) as wounded:
        found = fitted(reference, wounded.path, tmp_path / "scratch", given, solve=ridge(D, (100.0, 0.1, 1e-4)))
        theirs = streams(reference, given.tokens_NL, {})
        where_NL = (given.weight_NL > 0) & HELD[:, None]
        for block in found:
            earlier = {at: one for at, one in found.items() if at < block}
            h_NLD = streams(wounded.path, given.tokens_NL, earlier)[block]
            x_TD, y_TD = rows(h_NLD, theirs[block], where_NL)
            map_DD, bias_D = found[block].up_DR @ found[block].down_RD, found[block].bias_D
            after_TD = y_TD - x_TD @ map_DD.double().numpy().T - bias_D.double().numpy()
            assert (after_TD**2).sum() < (y_TD**2).sum()


def test_a_packed_candidate_gets_the_corrections_of_its_unpacked_twin(tiny: Tiny, tmp_path: Path) -> None:
    reference, packed = tiny(), {**RTN, "bits": 4, "form": "packed"}
    with operate(reference, tmp_path / "store", packed) as wounded:
        assert inspect(wounded.path).quantization is not None
        with dequantize(inspect(wounded.path), device="cpu", store=CheckpointStore(tmp_path / "plain", 10**9)) as twin:
            ours, theirs = (
                fitted(reference, path, tmp_path / name, text()).tensors()
                for name, path in (("ours", wounded.path), ("theirs", twin.path))
            )
    assert ours
    torch.testing.assert_close(dict(ours), dict(theirs), rtol=0, atol=0)


def test_what_a_dropped_block_did_is_in_the_correction_before_it(tiny: Tiny, tmp_path: Path) -> None:
    reference, given = tiny(), text()
    with operate(reference, tmp_path / "store", {"type": "prune.layers", "layers": [1]}) as wounded:
        found = fitted(reference, wounded.path, tmp_path / "scratch", given, pairs=[0, 2])
        wanted_NLD = streams(reference, given.tokens_NL, {})[1]
        before, after = (
            float((streams(wounded.path, given.tokens_NL, one)[0] - wanted_NLD)[HELD, 1:].square().mean())
            for one in ({}, found)
        )
    assert after < before


def test_windows_of_a_corpus_count_but_for_what_fills_them_up() -> None:
    documents = [TextDocument(str(at), "prose", text="seven eight nine ten " * 4) for at in range(9)]
    corpus = make_windows(documents, make_tokenizer(), 23)
    given = FitText.of(corpus)
    lengths = [len(window.tokens) for window in corpus.windows]
    assert min(lengths) < max(lengths)
    assert given.weight_NL.sum(1).tolist() == lengths
    for place, window in enumerate(corpus.windows):
        assert given.tokens_NL[place, : lengths[place]].tolist() == window.tokens.tolist()
    fitted_N, held_N = given.parts()
    assert not (fitted_N & held_N).any()
    assert set(given.document_N[held_N].tolist()) == {8}
    assert set(given.document_N[fitted_N].tolist()) == set(range(8))


def test_documents_of_two_corpora_are_spread_so_that_both_are_fitted_and_decide() -> None:
    def of(words: str, documents: int) -> Corpus:
        return make_windows(
            [TextDocument(str(at), "prose", text=words * 4) for at in range(documents)], make_tokenizer(), 23
        )

    first, second = of("seven eight nine ten ", 24), of("one two three ", 8)
    given = FitText.of(first, second)
    place_N = torch.tensor([0] * len(first.windows) + [1] * len(second.windows))
    for part_N in given.parts():
        assert set(place_N[part_N].tolist()) == {0, 1}
    for place, corpus in enumerate((first, second)):
        assert len(given.document_N[place_N == place].unique()) == len(corpus.documents)


def test_models_of_two_widths_or_depths_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    for other in ({"hidden_size": 128}, {"num_hidden_layers": 2}):
        with pytest.raises(HemostatError) as caught:
            fitted(tiny(), tiny(**other), tmp_path, text())
        assert caught.value.code is ErrorCode.INVALID_REQUEST


def test_a_text_without_a_position_to_learn_from_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(HemostatError) as caught:
        fitted(tiny(), tiny(), tmp_path, text((1,)))
    assert caught.value.code is ErrorCode.INVALID_REQUEST


def test_a_fit_shows_each_block_and_stops_when_it_is_cancelled(tiny: Tiny, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    told: list[tuple[str, int, int]] = []

    def check() -> None:
        if ("blocks", 1, 3) in told:
            raise StopError

    with pytest.raises(StopError):
        fitted(tiny(), tiny(), tmp_path, text(), progress=lambda *one: told.append(one), check_cancelled=check)
    assert told == [("blocks", 0, 3), ("blocks", 1, 3)]


def test_a_regression_of_rank_zero_is_the_mean_error() -> None:
    generator = torch.Generator().manual_seed(0)
    h_TD, wanted_TD = (torch.randn(40, 8, generator=generator) for _ in range(2))
    moments = Moments(8)
    moments.see(h_TD, wanted_TD, torch.ones(40))
    found = moments.regression(0.1, 0)
    assert found.rank == 0
    rms_T1 = (h_TD.square().mean(1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(found.bias_D, ((wanted_TD - h_TD) / rms_T1).mean(0))


def test_sinks_are_neither_fitted_nor_corrected(tiny: Tiny, tmp_path: Path) -> None:
    """One row in 32 is made 50 times as large in both models, and the candidate is off by a bias in all rows."""
    bias_D = torch.randn(D, generator=torch.Generator().manual_seed(4))
    sink_L1 = torch.where(torch.arange(L) == 3, 50.0, 1.0)[:, None]
    with fitting(tiny(), tiny(), tmp_path, text(), solve=ridge(0, (1.0,))) as fit:
        fit.reference.skeleton.layers[0].register_forward_hook(
            lambda _, __, h: h * sink_L1 + bias_D * rms_of(h * sink_L1) * (sink_L1 < 2)
        )
        fit.stream.skeleton.layers[0].register_forward_hook(lambda _, __, h: h * sink_L1)
        first = fit.run()[0]
    torch.testing.assert_close(first.bias_D, bias_D, rtol=1e-3, atol=1e-3)


def test_a_rank_above_the_width_is_the_width_and_a_block_of_sinks_alone_is_left() -> None:
    generator = torch.Generator().manual_seed(0)
    h_TD, wanted_TD = (torch.randn(40, 8, generator=generator) for _ in range(2))
    seen, none = Moments(8), Moments(8, limit=1e-6)
    for moments in (seen, none):
        moments.see(h_TD, wanted_TD, torch.ones(40))
    wide, whole = seen.regression(0.1, 64), seen.regression(0.1, 8)
    torch.testing.assert_close(wide.up_DR @ wide.down_RD, whole.up_DR @ whole.down_RD)
    assert wide.rank == 8
    assert ridge(4)(seen, none) is None
    assert ridge(4)(none, seen) is None


def test_a_refined_fit_on_another_device_gives_the_same_corrections_there(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma-2, whose attention is plain products: torch's fused one rounds apart on each device."""
    words = ["seven ", "eight ", "nine ", "ten "]
    drawn = np.random.default_rng(0).choice(words, (9, 40))
    documents = [TextDocument(str(at), "prose", text="".join(text)) for at, text in enumerate(drawn)]
    corpus = make_windows(documents, make_tokenizer(), 23)
    monkeypatch.setattr(refine, "RATE", Rate(1e-3))
    told: list[str] = []
    hooks: Any = {"progress": no_progress, "log": told.append, "check_cancelled": never_cancelled}
    with operate(tiny("gemma2"), tmp_path / "store", RTN) as wounded:
        pair = [
            SimpleNamespace(info=inspect(path), torch_dtype=torch.float32) for path in (tiny("gemma2"), wounded.path)
        ]
        sides: Any = SimpleNamespace(reference=pair[0], candidate=pair[1])
        rough, here = (
            fit_blocks(sides, [corpus], folder(tmp_path / f"{steps}"), device="cpu", refine_steps=steps, **hooks)
            for steps in (0, 2)
        )
        with second_device() as device:
            there = fit_blocks(sides, [corpus], folder(tmp_path / "there"), device=str(device), refine_steps=2, **hooks)
    assert there.digest == here.digest != rough.digest, told
    assert len(told) == 2
    assert "kept" in told[0]
