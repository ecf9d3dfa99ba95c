"""Layers run in a model of another width must cost what they cost where the width is the same, and a map that loses
much must be told from them."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from app.kinds.attribute.blocks import Internals, Measured
from app.kinds.attribute.report import Site
from app.models.checkpoint import inspect
from tests.support.internals import DOCUMENT_N, TOKENS_NL, at_borders, kl, run, whole
from tests.support.pruning import operate
from tests.support.widening import widened
from tests.unit.workers.diagnosis.attribute.test_affine import by_hand
from workers.diagnosis.attribute import alignment
from workers.diagnosis.attribute.alignment import Alignment, align
from workers.diagnosis.attribute.blocks import alignment_block
from workers.diagnosis.attribute.borders import Borders
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_sites
from workers.diagnosis.attribute.matching import Gap, Matching
from workers.diagnosis.attribute.runs import Runs
from workers.diagnosis.attribute.stitching import FOLDS, Stitched, Stitching
from workers.diagnosis.attribute.sums import Clusters, Sums
from workers.diagnosis.attribute.treatment import Patient
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
LAYERS = 6
TEXT = Measured(windows=len(TOKENS_NL), tokens=TOKENS_NL.numel(), documents=len(set(DOCUMENT_N)))


class LostError(Exception):
    """The attempt is lost."""


@pytest.fixture
def wider(tiny: Tiny, tmp_path: Path) -> Iterator[Callable[..., tuple[Alignment, Any, Any]]]:
    """(alignment, transformers' reference, transformers' candidate of the same width) of a recipe on a model of six
    layers, where the candidate of the alignment is this one in a larger space."""
    store = CheckpointStore(tmp_path / "store", 10**9)
    folder = tiny("llama", num_hidden_layers=LAYERS)

    def made(*steps: dict[str, Any]) -> tuple[Alignment, Any, Any]:
        with operate(folder, store, *steps) as modified:
            candidate = widened(modified.path, tmp_path / "wider", width=96)
            twin = whole(modified.path)
        with at_borders(folder, candidate, scratch=tmp_path) as both:
            return align(*both, DOCUMENT_N), whole(folder), twin

    yield made


def mean_kl(reference: Any, other: Any) -> float:
    return float(kl(run(reference).logits, run(other).logits).mean())


def test_an_added_layer_costs_what_it_costs_where_the_width_is_the_same(
    wider: Callable[..., tuple[Alignment, Any, Any]],
) -> None:
    found, reference, twin = wider(
        {"type": "extend.identity", "layers": [0]}, {"type": "extend.duplicate", "layers": [4]}
    )
    identity, duplicate = found.gaps
    assert (identity.gap.candidate, duplicate.gap.candidate) == ((1,), (5,))
    assert identity.swapped is duplicate.swapped is None
    assert identity.stitched is not None
    assert duplicate.stitched is not None
    assert not identity.stitched.nats.top.any()  # exactly, whatever the map loses
    for gap in (identity, duplicate):
        assert gap.stitched is not None
        assert 0 <= float(gap.stitched.control.values()) < 1e-6
    expected = mean_kl(reference, twin)
    assert expected > 0.01
    assert float(duplicate.stitched.nats.values()) == pytest.approx(expected, rel=2e-3)
    # without its added layers the candidate is the reference, and no map is needed to tell
    assert found.matched is not None
    assert float(found.matched.values()) < 1e-6
    assert found.matched_stitched is None
    assert found.maps is not None
    assert (found.maps.widths, found.maps.folds) == ((64, 96), FOLDS)
    # seven documents in five folds: the largest has two, and a document has at most two windows
    assert found.maps.tokens in {5 * 32, 6 * 32}
    block = alignment_block(found, TEXT, seed=0)
    _, told = block.gaps
    assert told.stitched is not None
    assert told.stitched.shown
    assert told.stitched.share == pytest.approx(1, rel=5e-3)
    info = SimpleNamespace(layers=LAYERS)
    patient = Patient(cast("Any", info), (), cast("Any", info))
    parts = SimpleNamespace(internals=Internals(alignment=block), patient=lambda: patient)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.diagnosis.attribute.gaps.put_back", lambda *_, **__: None)
        (site,) = gap_sites(cast("Found", parts))
    assert (site.name, site.shown, site.cause) == ("added layer 5", True, "inserted")
    assert site.nats == pytest.approx(expected, rel=2e-3)
    assert site.map_control == told.stitched.control


def test_a_damaged_layer_in_the_place_of_another_is_measured(tiny: Tiny, tmp_path: Path) -> None:
    """A gap that holds layers of both: the third one, rounded to two bits."""
    store = CheckpointStore(tmp_path / "store", 10**9)
    folder = tiny("llama", num_hidden_layers=LAYERS)
    step = {"type": "quantize.rtn", "bits": 2, "group_size": 32, "layers": [3]}
    with operate(folder, store, step) as modified:
        candidate, twin = widened(modified.path, tmp_path / "wider", width=96), whole(modified.path)
    pairs = tuple((layer, layer) for layer in range(LAYERS) if layer != 3)
    with pytest.MonkeyPatch.context() as patch, at_borders(folder, candidate, scratch=tmp_path) as both:
        patch.setattr(alignment, "match", lambda _: Matching(pairs, (Gap((3,), (3,), 4, 4),), 0.0))
        found = align(*both, DOCUMENT_N)
    (gap,) = found.gaps
    assert (gap.swapped, gap.saved) == (None, None)
    assert gap.stitched is not None
    assert float(gap.stitched.nats.values()) == pytest.approx(mean_kl(whole(folder), twin), rel=2e-3)
    assert float(gap.stitched.control.values()) < 1e-6
    # with the reference's own layer put back, nothing is left
    assert found.matched is None
    assert found.matched_stitched is not None
    assert float(found.matched_stitched.nats.values()) < 1e-6
    assert abs(float(found.matched_stitched.control.values())) < 1e-6


def test_what_both_models_have_is_measured_with_dropped_layers_put_back(
    wider: Callable[..., tuple[Alignment, Any, Any]],
) -> None:
    found, reference, twin = wider(
        {"type": "quantize.rtn", "bits": 3, "group_size": 32, "layers": [3, 5]}, {"type": "prune.layers", "layers": [1]}
    )
    (gap,) = found.gaps
    assert gap.gap.reference == (1,)
    assert gap.stitched is None
    assert gap.swapped is not None
    assert found.matched is None
    assert found.matched_stitched is not None
    parts = list(twin.model.layers)
    twin.model.layers = nn.ModuleList([parts[0], reference.model.layers[1], *parts[1:]])
    twin.config.num_hidden_layers = LAYERS
    expected = mean_kl(reference, twin)
    assert expected > 0.01
    assert float(found.matched_stitched.nats.values()) == pytest.approx(expected, rel=2e-3)
    assert abs(float(found.matched_stitched.control.values())) < 1e-4


@torch.no_grad()
def through(model: Any, layers: range, states_NLD: np.ndarray, *, logits: bool = True) -> torch.Tensor:
    """What leaves some layers of transformers' model, in float64, or its logits."""
    kept, norm = model.model.layers, model.model.norm
    model.model.layers = nn.ModuleList([kept[layer] for layer in layers])
    model.model.norm = norm if logits else nn.Identity()
    try:
        given = {"inputs_embeds": torch.from_numpy(states_NLD), "use_cache": False}
        found = model(**given).logits if logits else model.model(**given).last_hidden_state
    finally:
        model.model.layers, model.model.norm = kept, norm
    return cast("torch.Tensor", found)


def crosswise(clusters: Clusters, *, seed: int) -> Callable[..., np.ndarray]:
    """What carries states of a source to a target, both models' states at the borders given: regressions by hand."""
    fold_N = (np.random.default_rng(seed).permutation(clusters.count) % FOLDS)[clusters.of_window_N]

    def carried(source_NLD: np.ndarray, target_NLD: np.ndarray, states_NLD: np.ndarray) -> np.ndarray:
        made = np.empty(target_NLD.shape)
        for fold in range(FOLDS):
            seen = fold_N != fold
            flat = [one[seen].reshape(-1, one.shape[-1]) for one in (source_NLD, target_NLD)]
            _, weight_SU, offset_U = by_hand(*flat)
            made[~seen] = states_NLD[~seen] @ weight_SU + offset_U
        return made

    return carried


def test_strangers_are_stitched_by_the_definition(tiny: Tiny, tmp_path: Path) -> None:
    """Two unrelated models, whose map loses much: against regressions by hand and transformers in float64."""
    folders = tiny("llama", num_hidden_layers=4), tiny("llama", hidden_size=96, num_hidden_layers=5, seed=3)
    gap = Gap((2,), (2, 3), 3, 4)
    clusters = Clusters.of(DOCUMENT_N)
    with at_borders(*folders, scratch=tmp_path) as (reference, candidate):
        stitching = Stitching(Runs(reference, candidate, clusters, lambda: None), seed=5)
        found = stitching.swapped(gap)
        again, place = stitching.swapped_through(gap, [(2, 2)])
        h_NLD, c_NLD = (one.read(2, 0, len(TOKENS_NL)).double().numpy() for one in (reference, candidate))
    ours, theirs = (whole(folder).double() for folder in folders)
    carried = crosswise(clusters, seed=5)
    entering_NLD = carried(h_NLD, c_NLD, h_NLD)
    leaving_NLD = through(theirs, range(2, 4), entering_NLD, logits=False).numpy()
    lost_NLD, made_NLD = carried(c_NLD, h_NLD, entering_NLD), carried(c_NLD, h_NLD, leaving_NLD)
    clean = through(ours, range(2, 4), h_NLD)
    nats = kl(clean, through(ours, range(3, 4), h_NLD + made_NLD - lost_NLD)).mean()
    control = kl(clean, through(ours, range(2, 4), lost_NLD)).mean()
    assert float(control) > 0.01  # strangers: the map is no identity
    assert float(found.nats.values()) == pytest.approx(float(nats), rel=1e-3)
    assert float(found.control.values()) == pytest.approx(float(control), rel=1e-3)
    # what the candidate's own states cost there
    before = kl(clean, through(ours, range(2, 4), carried(c_NLD, h_NLD, c_NLD))).mean()
    assert place == (2, 2)
    assert found.before is None
    assert again.before is not None
    assert float(again.before.values()) == pytest.approx(float(before), rel=1e-3)
    assert float(again.nats.values()) == float(found.nats.values())


def changed(folder: Path, to: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """The checkpoint in `to` with other weights."""
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors")
    made = {name: change(name, tensor).contiguous() for name, tensor in tensors.items()}
    save_file(made, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_what_a_map_loses_of_a_damaged_host_is_told_against_the_host_itself(tiny: Tiny, tmp_path: Path) -> None:
    """All that the candidate has is the reference's, but for the first layer, without which it is far off; maps of few
    tokens lose much. Against the reference the host loses hardly more through them than without."""

    def sharper(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == "lm_head.weight":
            return 8 * tensor
        return tensor / 10 if "layers.0." in name and name.endswith(("o_proj.weight", "down_proj.weight")) else tensor

    folder = changed(tiny("llama", num_hidden_layers=4, tie_word_embeddings=False), tmp_path / "sharper", sharper)
    store = CheckpointStore(tmp_path / "store", 10**9)
    with operate(folder, store, {"type": "prune.layers", "layers": [0]}) as modified:
        candidate = widened(modified.path, tmp_path / "wider", width=96)
    matching = Matching(((1, 0), (2, 1), (3, 2)), (Gap((0,), (), 1, 0),), 0.0)
    few_NL = TOKENS_NL[:, :8]
    with (
        pytest.MonkeyPatch.context() as patch,
        at_borders(folder, candidate, scratch=tmp_path, tokens_NL=few_NL) as both,
    ):
        patch.setattr(alignment, "match", lambda _: matching)
        found = align(*both, DOCUMENT_N)
        h_NLD, c_NLD = (one.read(0, 0, len(few_NL)).double().numpy() for one in both)
    carried, theirs = crosswise(found.total.clusters, seed=0), whole(candidate).double()
    lost_NLD = carried(h_NLD, c_NLD, carried(c_NLD, h_NLD, c_NLD))
    reference = through(whole(folder).double(), range(4), h_NLD)
    plain, control = (through(theirs, range(3), one_NLD) for one_NLD in (c_NLD, lost_NLD))
    assert found.matched_stitched is not None
    nats, told = (float(one.values()) for one in (found.matched_stitched.nats, found.matched_stitched.control))
    assert told == pytest.approx(float(kl(plain, control).mean()), rel=1e-2)
    assert float(kl(reference, control).mean() - kl(reference, plain).mean()) < nats < told
    block = alignment_block(found, TEXT, seed=0).matched_stitched
    assert block is not None
    assert block.nats.ci is not None
    assert block.nats.ci[0] > 0
    assert block.shown is False


def test_what_a_map_loses_of_what_layers_add_is_not_told_as_layers_that_are_gone(tiny: Tiny, tmp_path: Path) -> None:
    """The candidate is the reference; its first layer is put in the place of the reference's. Embeddings span a few
    directions, which maps carry as they are, and what the layer adds into others they do not carry."""

    def flat(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == "lm_head.weight":
            return 8 * tensor
        if name != "model.embed_tokens.weight":
            return tensor
        u_VD, s_D, v_DD = torch.linalg.svd(tensor.double(), full_matrices=False)
        return ((u_VD[:, :16] * s_D[:16]) @ v_DD[:16]).to(tensor.dtype)

    folder = changed(tiny("llama", num_hidden_layers=4, tie_word_embeddings=False), tmp_path / "flat", flat)
    candidate = widened(folder, tmp_path / "wider", width=96)
    matching = Matching(((1, 1), (2, 2), (3, 3)), (Gap((0,), (0,), 1, 1),), 0.0)
    with pytest.MonkeyPatch.context() as patch, at_borders(folder, candidate, scratch=tmp_path) as both:
        patch.setattr(alignment, "match", lambda _: matching)
        found = align(*both, DOCUMENT_N)
        h_NLD, c_NLD = (one.read(0, 0, len(TOKENS_NL)).double().numpy() for one in both)
        g_NLD = both[0].read(1, 0, len(TOKENS_NL)).double().numpy()
    carried, ours = crosswise(found.total.clusters, seed=0), whole(folder).double()
    lost_NLD, made_NLD = (carried(c_NLD, h_NLD, carried(h_NLD, c_NLD, one_NLD)) for one_NLD in (h_NLD, g_NLD))
    clean = through(ours, range(4), h_NLD)
    of_states = float(kl(clean, through(ours, range(4), lost_NLD)).mean())
    of_added = float(kl(clean, through(ours, range(1, 4), h_NLD + made_NLD - lost_NLD)).mean())
    (gap,) = found.gaps
    for stitched in (gap.stitched, found.matched_stitched):
        assert stitched is not None
        nats = float(stitched.nats.values())
        assert of_states < nats / 100
        assert 0.01 < nats < of_added
        assert float(stitched.control.values()) == pytest.approx(of_added, rel=1e-2)
    block = alignment_block(found, TEXT, seed=0)
    for told in (block.gaps[0].stitched, block.matched_stitched):
        assert told is not None
        assert told.nats.ci is not None
        assert told.nats.ci[0] > 0
        assert told.shown is False


def test_layers_that_add_nothing_cost_exactly_nothing_however_much_the_map_loses(tiny: Tiny, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "store", 10**9)
    with (
        operate(tiny("llama", hidden_size=96, seed=3), store, {"type": "extend.identity", "layers": [1]}) as modified,
        at_borders(tiny("llama"), modified.path, scratch=tmp_path) as (reference, candidate),
    ):
        runs = Runs(reference, candidate, Clusters.of(DOCUMENT_N), lambda: None)
        found = Stitching(runs, seed=0).swapped(Gap((), (2,), 2, 3))
    assert not found.nats.top.any()
    assert float(found.control.values()) > 0.01


def test_of_one_window_no_map_is_fitted_and_it_is_said(tiny: Tiny, tmp_path: Path) -> None:
    folders = tiny("llama"), tiny("llama", hidden_size=96, num_hidden_layers=4)
    with at_borders(*folders, scratch=tmp_path, tokens_NL=TOKENS_NL[:1]) as both:
        found = align(*both, [0])
    (gap,) = found.gaps
    assert gap.stitched is None
    assert found.maps is None
    assert found.not_stitched.startswith("the text is a single window")
    assert alignment_block(found, TEXT, seed=0).not_stitched == found.not_stitched


def test_maps_are_fitted_a_window_at_a_time_and_cancelling_is_seen_between(tiny: Tiny, tmp_path: Path) -> None:
    asked, most = 0, 0
    limit = 10**9

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked > limit:
            raise LostError

    with (
        pytest.MonkeyPatch.context() as patch,
        at_borders(tiny("llama"), tiny("llama", hidden_size=96), scratch=tmp_path) as (reference, candidate),
    ):
        stitching = Stitching(Runs(reference, candidate, Clusters.of(DOCUMENT_N), check), seed=0)
        state_NLD = reference.read(1, 0, len(TOKENS_NL))
        read = Borders.read

        def seen(self: Borders, border: int, start: int, end: int) -> torch.Tensor:
            nonlocal most
            most = max(most, end - start)
            return read(self, border, start, end)

        patch.setattr(Borders, "read", seen)
        stitching.carried((reference, 1), (candidate, 1), (state_NLD,))
        assert most == 1
        limit = asked + 3
        with pytest.raises(LostError):
            stitching.carried((reference, 1), (candidate, 1), (state_NLD,))
        assert asked == limit + 1


def test_a_map_that_loses_more_than_the_layers_cost_shows_nothing(tiny: Tiny, tmp_path: Path) -> None:
    info = inspect(tiny("llama"))
    folders = tiny("llama"), tiny("llama", hidden_size=96, num_hidden_layers=4, seed=3)
    both = Matching(((0, 0),), (Gap((1, 2), (1, 2, 3), 3, 4),), 0.0)
    with pytest.MonkeyPatch.context() as patch, at_borders(*folders, scratch=tmp_path) as borders:
        patch.setattr(alignment, "match", lambda _: both)
        found = align(*borders, DOCUMENT_N)
    (gap,) = found.gaps

    def told(nats: float, control: float) -> tuple[Site, ...]:
        """Of so many times the whole candidate's KL, which has an interval above 0."""
        parts = [Sums(found.total.clusters, ()) for _ in range(2)]
        for part, times in zip(parts, (nats, control), strict=True):
            part.top, part.bottom = times * found.total.top, found.total.bottom
        changed = replace(found, gaps=(replace(gap, stitched=Stitched(*parts)),))
        inside = Internals(alignment=alignment_block(changed, TEXT, seed=0))
        parts_of = SimpleNamespace(internals=inside, patient=lambda: Patient(info, (), info))
        return gap_sites(cast("Found", parts_of))

    (sure,), (lost,), (broken,) = told(0.5, 0.25), told(0.5, 0.75), told(0.5, float("nan"))
    assert (broken.shown, broken.cause, broken.ci) == (False, "unclear", sure.ci)
    assert broken.map_control is not None
    assert broken.map_control.mean is None
    assert "where the map alone leaves logits that are not finite, so that they prove nothing; " in broken.why
    assert told(float("nan"), 0.25) == ()  # no nats to rank it by
    assert sure.ci == lost.ci
    assert sure.ci is not None
    assert sure.ci[0] > 0
    assert (sure.shown, sure.cause, lost.shown, lost.cause) == (True, "removed", False, "unclear")
    assert lost.unclear == "no_damage_shown"
    assert "so that they prove nothing" in lost.why
    assert "so that they prove nothing" not in sure.why
    assert lost.treatment is not None
    assert lost.treatment.recipe is None
