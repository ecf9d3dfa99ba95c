"""`python -m tests.bench.blocks MODEL --text WIKITEXT --scratch FOLDER [--cases CASE …]`: what corrections after each
block take back; writes tests/bench/blocks.csv, each case as soon as it is measured (default: all of `CASES`).

The candidate is MODEL rounded to 4 bits in groups of 64. Fitted are documents of five domains of the shipped
calibration text; *own* are the evaluation documents of these five, *other* those of the other five, *wikitext* the
beginnings of articles of a file of WikiText-2. Of every document all whole windows of `WINDOW` tokens count.

Rows: `kl_raw` and `kl` of a side in nats per token; `removed`, the share of the raw KL that is taken back, with its
95 % interval by document (`removed_low`, `removed_high`); `removed_least`, that of the domain that gains least.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from app.contracts.blocks import RANK
from app.models.checkpoint import CheckpointInfo, inspect
from app.recipes.recipe import Recipe
from app.settings import Settings
from tests.bench.mitigation import articles_of
from tests.bench.rows import Row, read, replaced, write
from workers.calibration.fitting.blocks import RIDGES, BlockFit, Moments, Solve, ridge
from workers.calibration.fitting.fit_text import FitText
from workers.calibration.fitting.refine import refined
from workers.calibrators.blocks import NO_LIMIT, BlockCorrection, Blocks
from workers.distributions.divergence import Divergence, arithmetic
from workers.distributions.head import Head
from workers.distributions.intervals import ratio_intervals
from workers.measuring.calibration_text import loader_without_sampler, ordinary_tokens
from workers.measuring.positions import positions_of
from workers.mitigation.divergence import Divergence as Training
from workers.mitigation.own_text import own_text
from workers.surgery.blockwise.mixtures import fused
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.stream import Stream
from workers.surgery.callbacks import never_cancelled
from workers.surgery.dequantize import open_plain
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore
from workers.text.documents import TextDocument
from workers.text.shipped import load_shipped
from workers.text.tokenization import load_tokenizer
from workers.text.windows import Corpus, make_windows

RESULTS = Path(__file__).with_name("blocks.csv")
FITTED = ("prose", "exposition", "dialogue", "technical", "letters")
WINDOW = 128
# Of WikiText-2: how many articles, and letters of each.
ARTICLES, LETTERS = 40, 800
SCHEMES = {
    "rtn_4": [{"type": "quantize.rtn", "bits": 4, "group_size": 64}],
    "rtn_4_packed": [{"type": "quantize.rtn", "bits": 4, "group_size": 64, "form": "packed"}],
    "wanda_50": [{"type": "prune.wanda", "sparsity": 0.5}],
}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A way of fitting. `tokens` at most are fitted, `every` how many blocks share a correction, `shrink` what it is
    multiplied by, `sinks_apart` whether attention sinks are left alone, `form` what of the map is kept. `own`
    tokens the reference writes are fitted beside the text; `refit` fits those that decide too, once they have.
    `weighted`: a position counts by its raw KL. `fisher`: what the rank keeps of the map is chosen by how much the
    reference's loss depends on each channel of the stream. `refine`: steps of gradient descent at the end. `halves`:
    a correction follows the attention of a block too."""

    tokens: int = 5_000
    rank: int = RANK
    every: int = 1
    form: str = "affine"
    shrink: float = 1.0
    sinks_apart: bool = True
    ridges: tuple[float, ...] = RIDGES
    scheme: str = "rtn_4"
    own: int = 0
    refit: bool = False
    weighted: bool = False
    fisher: bool = False
    refine: int = 0
    halves: bool = False
    dtype: torch.dtype = torch.bfloat16

    def solve(self, layers: int, fisher_LD: torch.Tensor | None = None) -> Solve:
        """What `BlockFit` is given."""
        one = {"affine": (refitted if self.refit else ridge)(self.rank, self.ridges), "gains": gains, "bias": bias}[
            self.form
        ]
        left = iter(range(layers - 1, -1, -1))

        def solve(fitted: Moments, held: Moments) -> BlockCorrection | None:
            layer = layers - 1 - (from_end := next(left))
            if fisher_LD is not None:
                found: BlockCorrection | None = by_fisher(fitted, held, fisher_LD[layer], self.rank, self.ridges)
            else:
                found = None if from_end % self.every else one(fitted, held)
            if found is None:
                return None
            limit = found.limit if self.sinks_apart else torch.tensor(NO_LIMIT)
            return BlockCorrection(found.down_RD, self.shrink * found.up_DR, self.shrink * found.bias_D, limit)

        return solve


def refitted(rank: int, ridges: Sequence[float]) -> Solve:
    """Of the documents that decide, too, with the ridge that did best there."""

    def solve(fitted: Moments, held: Moments) -> BlockCorrection | None:
        share = min(ridges, key=lambda one: held.error(fitted.regression(one, rank)))
        fitted.add(held)
        return fitted.regression(share, rank)

    return solve


def by_fisher(
    fitted: Moments, held: Moments, fisher_D: torch.Tensor, rank: int, ridges: Sequence[float]
) -> BlockCorrection:
    """The regression, cut to a rank by the error that Σ_d F_d (y - M x)_d² measures, F the Fisher information."""
    scale_D = (fisher_D / fisher_D.mean()).clamp_min(1e-3).sqrt().double()

    def cut(share: float) -> BlockCorrection:
        whole = fitted.regression(share, fitted.width)
        x_D, y_D, xx_DD, *_ = fitted.means()
        map_DD = whole.up_DR.double() @ whole.down_RD.double()
        scaled_DD = scale_D[:, None] * map_DD
        kept_DR = torch.linalg.eigh(scaled_DD @ (xx_DD - torch.outer(x_D, x_D)) @ scaled_DD.T)[1][:, -rank:]
        up_DR, down_RD = kept_DR / scale_D[:, None], kept_DR.T @ scaled_DD
        bias_D = y_D - up_DR @ (down_RD @ x_D)
        down_RD, up_DR, bias_D = (one.float().contiguous() for one in (down_RD, up_DR, bias_D))
        return BlockCorrection(down_RD, up_DR, bias_D, torch.tensor(fitted.limit))

    return min((cut(share) for share in ridges), key=held.error)


CASES = {
    "base": Case(),
    "tokens_9k": Case(tokens=9_000),
    "rank_4": Case(rank=4),
    "rank_8": Case(rank=8),
    "rank_16": Case(rank=16),
    "rank_128": Case(rank=128),
    "full": Case(rank=576),
    "every_second": Case(every=2),
    "gains": Case(form="gains"),
    "bias": Case(form="bias"),
    "shrink_0.8": Case(shrink=0.8),
    "sinks_corrected": Case(sinks_apart=False),
    "refit": Case(refit=True),
    "own_10k": Case(tokens=9_000, own=10_240),
    "own_40k": Case(tokens=9_000, own=40_960),
    "float32": Case(dtype=torch.float32),
    "packed": Case(scheme="rtn_4_packed"),
    "weighted": Case(weighted=True),
    "fisher": Case(fisher=True),
    "fisher_rank_16": Case(fisher=True, rank=16),
    "refined": Case(refine=150),
    "own_40k_refined": Case(tokens=9_000, own=40_960, refine=150),
    "own_190k": Case(tokens=9_000, own=194_560),
    "halves": Case(halves=True),
    "halves_rank_32": Case(halves=True, rank=32),
    "halves_own_40k": Case(tokens=9_000, own=40_960, halves=True),
    "wanda_50": Case(scheme="wanda_50"),
}


def bias(fitted: Moments, _: Moments) -> BlockCorrection:
    """The mean error alone."""
    _, y_D, *_ = fitted.means()
    return BlockCorrection(torch.zeros(0, len(y_D)), torch.zeros(len(y_D), 0), y_D.float(), torch.tensor(fitted.limit))


def gains(fitted: Moments, _: Moments) -> BlockCorrection:
    """A gain and a bias for each channel."""
    x_D, y_D, xx_DD, yx_DD, *_ = fitted.means()
    gain_D = (yx_DD.diagonal() - x_D * y_D) / (xx_DD.diagonal() - x_D.square()).clamp_min(1e-12)
    bias_D = (y_D - gain_D * x_D).float()
    return BlockCorrection(gain_D.diag().float(), torch.eye(len(x_D)), bias_D, torch.tensor(fitted.limit))


class HalvesFit(BlockFit):
    """Corrections behind the attention and behind the MLP of each block, of models with Llama's layers."""

    def run(self) -> Blocks:
        """The corrections; each half counts as a block."""
        info = self.stream.skeleton.info
        found: dict[int, BlockCorrection] = {}
        for place in range(2 * info.layers):
            self._progress("halves", place, 2 * info.layers)
            for stream in (self.reference, self.stream):
                self._half(stream, place)
            correction = self._solve(*self._moments(info.hidden_size))
            if correction is not None:
                self.stream.change(partial(rowwise, correction))
                found[place] = correction
        return Blocks(found, layers=2 * info.layers, hidden_size=info.hidden_size)

    def _half(self, stream: Stream, place: int) -> None:
        layer, mlp = divmod(place, 2)
        module: Any = stream.skeleton.block(layer)

        def attended(h_NLD: torch.Tensor) -> torch.Tensor:
            given = stream._walk.kwargs(len(h_NLD), layer)
            out_NLD: torch.Tensor = h_NLD + module.self_attn(hidden_states=module.input_layernorm(h_NLD), **given)[0]
            return out_NLD

        def through_mlp(h_NLD: torch.Tensor) -> torch.Tensor:
            out_NLD: torch.Tensor = h_NLD + module.mlp(module.post_attention_layernorm(h_NLD))
            return out_NLD

        stream.change(through_mlp if mlp else attended)
        stream.skeleton.release(layer)
        stream.layer = layer + mlp


def rowwise(correction: BlockCorrection, h_NLD: torch.Tensor) -> torch.Tensor:
    """A correction of every row."""
    return correction(h_NLD.flatten(0, -2)).view_as(h_NLD)


class Bench:
    """The test text, and the reference's states over it, made once."""

    def __init__(self, model: Path, text: Path, scratch: Path) -> None:
        self.model, self.scratch = inspect(model), scratch
        self._tokenizer = load_tokenizer(model)
        evaluation = load_shipped(chat_template=False)
        articles = articles_of(text.read_text(encoding="utf-8"))[:ARTICLES]
        wiki = [TextDocument(f"article {at}", "wikitext", text=one[:LETTERS]) for at, one in enumerate(articles)]
        self.test = self.cut([*evaluation, *wiki])
        self.text = FitText.of(self.test)
        self.text.weight_NL.zero_()
        domains = np.array([document.domain for document in self.test.documents])
        self.positions = positions_of(self.test)
        self.domain_T = domains[self.positions.document]
        self.side_T = np.where(
            self.domain_T == "wikitext", "wikitext", np.where(np.isin(self.domain_T, FITTED), "own", "other")
        )
        head = Head.load(model)
        self._divergence = Divergence(head, head, precision=arithmetic("fast", "cpu"), device="cpu")

    def cut(self, documents: Sequence[TextDocument]) -> Corpus:
        """The whole windows of documents."""
        found = make_windows(documents, self._tokenizer, WINDOW)
        return replace(found, windows=[window for window in found.windows if len(window.tokens) == WINDOW])

    def fitted(self, tokens: int) -> Corpus:
        """The first windows of the five domains that the tokens take."""
        documents = [one for one in load_shipped("calibration", chat_template=False) if one.domain in FITTED]
        found = self.cut(documents)
        return replace(found, windows=found.windows[: tokens // WINDOW])

    def own(self, windows: int) -> torch.Tensor:
        """(windows, WINDOW) that the reference writes."""
        file = self.scratch / f"own-{windows}.pt"
        if not file.is_file():
            with skeleton(self.model, torch.bfloat16) as made:
                starts_V = ordinary_tokens(self._tokenizer)
                torch.save(own_text(made, self.text.tokens_NL, windows, seed=0, starts_V=starts_V, progress=told), file)
        found: torch.Tensor = torch.load(file)
        return found

    def scheme(self, name: str) -> CheckpointInfo:
        """The candidate, packed or plain."""
        recipe = TypeAdapter(Recipe).validate_python(SCHEMES[name])
        store = CheckpointStore(self.scratch / "store", 10**10)
        text = loader_without_sampler(Settings(), self.model.path)
        return inspect(apply(self.model, recipe, device="cpu", store=store, calibration=text).path)

    def kl(self, states_TD: torch.Tensor) -> Array:
        """KL at each scored position of the test."""
        reference_TD = self._kept("reference", self.model, states_TD.dtype)
        return self._divergence(reference_TD, states_TD, self.positions.token_id).kl.astype(np.float64)

    def rows(self, stream: Stream) -> torch.Tensor:
        """(T, D) of what leaves the final norm at the scored positions of the test, which are the stream's last."""
        states = stream.normed()
        first = states.shape[0] - len(self.test.windows)
        return torch.cat(
            [
                states.read(first + at, first + at + 1)[0, : len(window.scored)][torch.from_numpy(window.scored)]
                for at, window in enumerate(self.test.windows)
            ]
        )

    def raw(self, case: Case) -> Array:
        """KL of the candidate as it is."""
        return self.kl(self._kept(case.scheme, self.scheme(case.scheme), case.dtype))

    def _kept(self, name: str, info: CheckpointInfo, dtype: torch.dtype) -> torch.Tensor:
        file = self.scratch / f"{name}-{dtype}.pt"
        if not file.is_file():
            with skeleton(info, dtype) as made, tempfile.TemporaryDirectory(dir=self.scratch) as folder:
                torch.save(self.rows(Stream(made, self.text.tokens_NL, Path(folder))), file)
        found: torch.Tensor = torch.load(file)
        return found

    def run(self, case: Case) -> tuple[Array, Blocks, int]:
        """KL with the corrections, these, and how many positions were fitted or decided by."""
        fitted = FitText.of(self.fitted(case.tokens))
        if case.weighted:
            fitted = self._weighted(fitted, case)
        if case.own:
            fitted = dealt_out(fitted, self.own(case.own // WINDOW))
        with ExitStack() as stack:
            reference, candidate = (
                stack.enter_context(skeleton(info, case.dtype)) for info in (self.model, self.scheme(case.scheme))
            )
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self.scratch)))
            text = joined(fitted, self.text)
            fisher_LD = fisher_of(self.model.path, fitted.tokens_NL) if case.fisher else None
            walk, borders = (HalvesFit, 2) if case.halves else (BlockFit, 1)
            solve = case.solve(borders * self.model.layers, fisher_LD)
            fit = walk(reference, candidate, text, folder, solve=solve, progress=told)
            found = fit.run()
            stream = fit.stream
            if case.refine:
                found = self._refined(case, fit, text, found)
                again = stack.enter_context(skeleton(self.scheme(case.scheme), case.dtype))
                stream = corrected(Stream(again, text.tokens_NL, folder, phase="again"), found)
            return self.kl(self.rows(stream)), found, int((fitted.weight_NL > 0).sum())

    def _refined(self, case: Case, fit: BlockFit, text: FitText, found: Blocks) -> Blocks:
        """Refined by gradient; `fit` has been run."""
        heads = (Head.load(info.path, dtype=case.dtype) for info in (self.model, self.scheme(case.scheme)))
        return refined(
            fit.stream.skeleton,
            found,
            text,
            fit.reference.normed(),
            Training(*heads),
            steps=case.refine,
            progress=told,
            log=print,
            check_cancelled=never_cancelled,
        )

    def _weighted(self, text: FitText, case: Case) -> FitText:
        """A position counts by its raw KL, five times the mean at most."""
        normed = []
        for info in (self.model, self.scheme(case.scheme)):
            with skeleton(info, case.dtype) as made, tempfile.TemporaryDirectory(dir=self.scratch) as folder:
                normed.append(Stream(made, text.tokens_NL, Path(folder)).normed().read(0, len(text.tokens_NL)))
        reference_TD, candidate_TD = (states.flatten(0, 1) for states in normed)
        kl = self._divergence(reference_TD, candidate_TD, text.tokens_NL.roll(-1, 1).flatten()).kl
        weight_NL = torch.from_numpy(kl.astype(np.float32)).view_as(text.weight_NL)
        return replace(text, weight_NL=(weight_NL / weight_NL.mean()).clamp(1e-3, 5.0))

    def removed(self, name: str, raw_T: Array, kl_T: Array) -> Iterator[Row]:
        """The rows of a case."""
        for side in ("own", "other", "wikitext"):
            here_T = self.side_T == side
            for metric, column_T in (("kl_raw", raw_T), ("kl", kl_T)):
                yield Row("blocks", name, f"{side}_{metric}", float(column_T[here_T].mean()), "nats")
            yield Row("blocks", name, f"{side}_tokens", int(here_T.sum()), "tokens")
            mean, low, high = self._share(raw_T, kl_T, here_T)
            domains = np.unique(self.domain_T[here_T])
            least = min(self._share(raw_T, kl_T, self.domain_T == domain)[0] for domain in domains)
            for metric, value in (("", mean), ("_low", low), ("_high", high), ("_least", least)):
                yield Row("blocks", name, f"{side}_removed{metric}", value, "share")

    def _share(self, raw_T: Array, kl_T: Array, here_T: NDArray[np.bool_]) -> tuple[float, float, float]:
        """Mean and interval of the share of the raw KL that is taken back."""
        _, at_T = np.unique(self.positions.document[here_T], return_inverse=True)
        saved_N, raw_N = (np.bincount(at_T, column_T[here_T]) for column_T in (raw_T - kl_T, raw_T))
        mean, _, low, high = ratio_intervals(saved_N[None], raw_N[None], seed=0)
        return float(mean[0]), float(low[0]), float(high[0])


def corrected(stream: Stream, blocks: Blocks) -> Stream:
    """A stream that goes all the way, with corrections."""
    for layer in range(blocks.layers):
        stream.advance(layer + 1)
        if layer in blocks:
            stream.change(partial(rowwise, blocks[layer]))
    return stream


def fisher_of(model: Path, tokens_NL: torch.Tensor) -> torch.Tensor:
    """(layers, D): the mean square of the loss's gradient by each channel behind each block, times the mean square of
    the row; labels are drawn from the model itself."""
    made = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    made.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    total: torch.Tensor | float = 0.0
    states: list[torch.Tensor] = []
    for layer in made.model.layers:
        layer.register_forward_hook(lambda _, __, left: states.append(left))
    for tokens_L in tokens_NL[:: max(1, len(tokens_NL) // 16)]:
        embedded = made.get_input_embeddings()(tokens_L[None]).requires_grad_()
        states.clear()
        logits_TV = made(inputs_embeds=embedded).logits[0]
        drawn_T = torch.multinomial(logits_TV.detach().softmax(1), 1, generator=generator)[:, 0]
        loss = torch.nn.functional.cross_entropy(logits_TV, drawn_T, reduction="sum")
        gradients = torch.autograd.grad(loss, states)
        total = total + torch.stack(
            [
                (one[0].square() * state[0].detach().square().mean(1, keepdim=True)).mean(0)
                for one, state in zip(gradients, states, strict=True)
            ]
        )
    assert isinstance(total, torch.Tensor)
    return total


def told(phase: str, done: int, total: int) -> None:
    """Progress, for people."""
    sys.stderr.write(f"\r{phase} {done}/{total} ")


@contextmanager
def skeleton(info: CheckpointInfo, dtype: torch.dtype) -> Iterator[Skeleton]:
    """A checkpoint, packed or not, that is walked in a dtype."""
    with open_plain(info, "cpu") as (plain, reader):
        yield Skeleton(plain, fused(plain, reader), device="cpu", dtype=dtype, mixtures=True)


def joined(one: FitText, other: FitText) -> FitText:
    """Two texts, the first one's windows first; of windows of one length."""
    return FitText(
        torch.cat([one.tokens_NL, other.tokens_NL]),
        torch.cat([one.weight_NL, other.weight_NL]),
        torch.cat([one.document_N, other.document_N]),
    )


def dealt_out(one: FitText, own_NL: torch.Tensor) -> FitText:
    """A text with windows that are documents of their own, numbered so that either is spread over the whole."""
    weight_NL = torch.ones(own_NL.shape)
    documents = len(one.document_N.unique())
    both = torch.cat([(one.document_N + 0.5) / documents, (torch.arange(len(own_NL)) + 0.5) / len(own_NL) + 1e-6])
    return replace(
        joined(one, FitText(own_NL, weight_NL, one.document_N)), document_N=both.unique(return_inverse=True)[1]
    )


def main() -> None:
    """Measures what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the demo model")
    parser.add_argument("--text", type=Path, required=True, help="a file of WikiText-2")
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for checkpoints and states")
    parser.add_argument("--cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    given = parser.parse_args()
    bench = Bench(given.model, given.text, given.scratch)
    for name in given.cases or CASES:
        case = CASES[name]
        began = time.monotonic()
        kl_T, found, positions = bench.run(case)
        seconds = time.monotonic() - began
        np.save(given.scratch / f"{name}.npy", kl_T)
        rows = [
            Row("blocks", name, "fitted", positions, "positions"),
            Row("blocks", name, "corrected", len(found), "blocks"),
            *bench.removed(name, bench.raw(case), kl_T),
        ]
        write(RESULTS, replaced(read(RESULTS) if RESULTS.is_file() else [], rows))
        sys.stdout.write(f"{name}: {seconds:.0f} s\n" + "".join(f"  {r.metric} {r.value:.5g}\n" for r in rows))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
