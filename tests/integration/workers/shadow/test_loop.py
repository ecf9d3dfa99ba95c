"""The loop of one deployment from its first sample to a promotion and a restart, in order: one process for all."""

import os
import time

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.contracts.deployment import (
    CalibrationMode,
    Deployment,
    DeploymentEventType,
    DeploymentPatch,
    DeploymentState,
    DriftState,
    ShadowSample,
)
from app.contracts.profile import FitRecord, ProfileModel, ProfileRecord
from app.contracts.request import CandidateModel
from app.models.checkpoint import fingerprint, inspect
from app.settings import Settings
from tests.integration.conftest import RedisServer
from tests.integration.workers.shadow.conftest import PATIENCE_S, RECIPE, Shadow, hidden_file, run
from tests.support.blocks import corrections, hooked
from tests.support.worker import wait_for
from workers.calibration.online import state
from workers.calibration.profiles import ProfileStore
from workers.calibrators.base import Base
from workers.calibrators.kinds import Chain
from workers.calibrators.token_bias import TokenBias
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

V = 320
RNG = np.random.default_rng(0)
COUNT = iter(range(10**6))
# Pushed at once where a verdict takes hundreds: after each push the status is waited for, which comes once a second.
MANY = 48
SHORT = {"prompt": 4, "output": 8}  # for the many that a quiet limit is learned from


def samples(count: int, *, version: str = "identity", prompt: int = 12, output: int = 24) -> list[ShadowSample]:
    return [
        ShadowSample(
            id=f"req-{next(COUNT)}",
            prompt=tuple(RNG.integers(2, V, prompt).tolist()),
            output=tuple(RNG.integers(2, V, output).tolist()),
            version=version,
            at=time.time(),
        )
        for _ in range(count)
    ]


def modified(settings: Settings) -> Modified:
    """The served checkpoint after its recipe."""
    return apply(
        inspect(settings.home / "served"),
        CandidateModel.model_validate({"model": "m", "recipe": RECIPE}).recipe,
        device="cpu",
        store=CheckpointStore(settings.home / "checkpoints", 10**9),
    )


def weights_of(settings: Settings) -> tuple[str, str]:
    """Fingerprints of the reference and of the candidate."""
    with modified(settings) as found:
        return fingerprint(settings.home / "tiny"), found.fingerprint


def biased(
    settings: Settings, strength: float, seed: int, weights: tuple[str, str] | None = None
) -> tuple[str, torch.Tensor]:
    """A profile of random token biases, put into the store as a fit would; its version and the bias."""
    bias_V = torch.randn(V, generator=torch.Generator().manual_seed(seed)) * strength
    return put(settings, TokenBias(torch.arange(V), bias_V, V), seed, weights or weights_of(settings)), bias_V


def put(settings: Settings, calibrator: Base, seed: int, weights: tuple[str, str]) -> str:
    """The version of a stored profile."""
    reference, candidate = weights
    fit = FitRecord(
        origin="job",
        reference=ProfileModel(model="tiny", weights_fingerprint=reference),
        candidate=ProfileModel(model="served", weights_fingerprint=candidate),
        head="h",
        hidden_size=64,
        vocabulary=V,
        tokenizer_fingerprint="t",
        engine="e",
        dtype="bfloat16",
        window=128,
        seed=seed,
        sets=(),
    )
    return ProfileStore(settings).put(calibrator, ProfileRecord(fit=fit)).version


class Oracle:
    """Both models in float32 transformers, divergences in float64 from the definition."""

    def __init__(self, settings: Settings) -> None:
        with modified(settings) as found:
            self.models = [
                AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
                for path in (settings.home / "tiny", found.path)
            ]

    def outputs(self, sample: ShadowSample) -> list[torch.Tensor]:
        """[log p, log q] of the generated positions, and the candidate's last hidden states there."""
        window = torch.tensor([[*sample.prompt, *sample.output]])
        rows = slice(len(sample.prompt) - 1, -1)
        with torch.inference_mode():
            found = [model(window, output_hidden_states=True) for model in self.models]
        return [*(one.logits[0, rows].double() for one in found), found[1].hidden_states[-1][0, rows]]

    def logits(self, hidden_TD: torch.Tensor) -> torch.Tensor:
        weight: torch.Tensor = self.models[1].get_output_embeddings().weight.detach()
        return hidden_TD.double() @ weight.double().T


def kl(a_TV: torch.Tensor, b_TV: torch.Tensor) -> torch.Tensor:
    p, q = a_TV.log_softmax(1), b_TV.log_softmax(1)
    return (p.exp() * (p - q)).sum(1)


def seen(shadow: Shadow) -> float:
    return shadow.metric("hemostat_shadow_scored_requests_total") or 0.0


def push_and_wait(shadow: Shadow, pushed: list[ShadowSample]) -> Deployment:
    before = seen(shadow)
    for end in range(200, len(pushed) + 200, 200):
        shadow.push(pushed[end - 200 : end])  # the queue holds few more
        scored = before + min(end, len(pushed))
        wait_for(lambda scored=scored: seen(shadow) >= scored, what="scored samples", timeout_s=PATIENCE_S)
    scored_at = time.time()
    return shadow.until(lambda found: found.shadow and found.shadow.updated_at > scored_at, what="status")


def replace_weights(settings: Settings, *, norm: float) -> None:
    """Puts the weights that `served` began with, its final norm times `norm`, in place of what lies there."""
    target = settings.home / "served" / "model.safetensors"
    tensors = load_file(settings.home / "tiny" / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * norm
    made = target.with_name("made.tmp")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, made, metadata={"format": "pt"})
    made.replace(target)


def test_served_divergence_is_that_of_an_independent_implementation(shadow: Shadow, settings: Settings) -> None:
    version, bias_V = biased(settings, 0.4, seed=1)
    blocks = corrections({0: 4, 2: 0})
    within = put(settings, Chain([blocks, TokenBias(torch.arange(V), bias_V, V)]), 1, weights_of(settings))
    oracle, corrected = Oracle(settings), Oracle(settings)
    hooked(corrected.models[1], blocks)
    pushed = samples(14) + samples(14, version=version) + samples(14, version=within)
    raw, calibrated, engine, agree = [], [], [], []
    for index, sample in enumerate(pushed):
        reference, candidate, hidden_TD = oracle.outputs(sample)
        served = candidate
        if sample.version == within:
            _, served, hidden_TD = corrected.outputs(sample)
        answered = served
        if sample.version != "identity":
            served = served + bias_V.double()
        raw.append(kl(reference, candidate))
        calibrated.append(kl(reference, served))
        agree.append(reference.argmax(1) == served.argmax(1))
        noisy_TD = (hidden_TD + 0.2 * torch.randn(hidden_TD.shape)).bfloat16()
        if index % 2:
            engine.append(kl(oracle.logits(noisy_TD), answered))
            file = hidden_file(shadow.folder, f"{sample.id}.bin", noisy_TD)
            pushed[index] = sample.model_copy(update={"hidden": file})
    status = push_and_wait(shadow, pushed).shadow
    assert status.drift is DriftState.LEARNING
    # What served: identity alone, whose requests are enough by themselves.
    own = torch.cat(raw[:14])
    assert status.divergence.requests == 14
    assert status.divergence.raw.mean == pytest.approx(float(own.mean()), rel=0.05)
    assert status.divergence.saved.mean == 0
    assert status.divergence.raw.low < float(own.mean()) < status.divergence.raw.high
    agreement = float(torch.cat(agree[:14]).double().mean())
    assert status.divergence.top1_agreement_raw == pytest.approx(agreement, abs=0.02)
    assert status.divergence.engine.mean == pytest.approx(float(torch.cat(engine[:7]).mean()), rel=0.1)
    # Every token went into the histograms, whatever served it.
    for stage, values in (("raw", raw), ("calibrated", calibrated), ("engine", engine)):
        name = "hemostat_served_kl_nats"
        total, count = (shadow.metric(f"{name}_{what}", stage=stage) for what in ("sum", "count"))
        every = torch.cat(values)
        assert count == len(every)
        assert total == pytest.approx(float(every.sum()), rel=0.05)
    assert list((shadow.folder / "hidden").iterdir()) == []
    assert shadow.metric("hemostat_shadow_engine_term_missing_total") == 21
    assert shadow.metric("hemostat_drift_state", state="learning") == 1


def test_what_cannot_be_scored_is_counted_and_leaves_nothing(shadow: Shadow, settings: Settings) -> None:
    expired, long, foreign, gone = samples(4)
    old = time.time() - settings.shadow_expiry_s - 1
    expired = expired.model_copy(
        update={"at": old, "hidden": hidden_file(shadow.folder, "expired.bin", torch.zeros(24, 64))}
    )
    long = long.model_copy(update={"output": tuple(RNG.integers(2, V, 400).tolist())})
    foreign = foreign.model_copy(update={"prompt": (5, V + 7)})
    gone = gone.model_copy(update={"version": "cal-" + "0" * 16})
    before = seen(shadow)
    push_and_wait(shadow, [])
    shadow.push([expired, long, foreign, gone])
    for reason in ("expired", "too_long", "vocabulary", "version"):
        name = "hemostat_shadow_skipped_total"
        wait_for(lambda name=name, reason=reason: shadow.metric(name, reason=reason) == 1, what=reason)
    assert seen(shadow) == before
    assert list((shadow.folder / "hidden").iterdir()) == []


def test_every_thread_of_it_leaves_the_cores_to_what_serves(shadow: Shadow, settings: Settings) -> None:
    threads = {one.id: os.getpriority(os.PRIO_PROCESS, one.id) for one in psutil.Process(shadow.process.pid).threads()}
    assert len(threads) > 2
    assert min(threads.values()) >= settings.shadow_nice > 0


def test_a_poisoned_profile_on_trial_is_never_promoted(shadow: Shadow, settings: Settings) -> None:
    version, _ = biased(settings, 1.5, seed=2)
    (shadow.folder / "trials" / version).touch()
    shadow.until(lambda found: found.shadow.trial == version, what="trial")
    for _ in range(10):
        push_and_wait(shadow, samples(MANY))
        if shadow.get().shadow.trial is None:  # type: ignore[union-attr]
            break
    found = shadow.until(lambda found: found.shadow.trial is None, what="verdict")
    assert (found.active_version, found.promotions) == ("identity", 0)
    kinds = {event.type: event for event in shadow.events() if event.version == version}
    assert DeploymentEventType.TRIAL in kinds and DeploymentEventType.PROMOTED not in kinds
    refused = kinds[DeploymentEventType.REFUSED]
    assert refused.evidence["mean_gain"] < 0  # type: ignore[operator]


def test_a_profile_of_other_weights_is_not_tried(shadow: Shadow, settings: Settings) -> None:
    version, _ = biased(settings, 0.1, seed=9, weights=("a" * 64, weights_of(settings)[1]))
    (shadow.folder / "trials" / version).touch()
    wait_for(lambda: any(event.version == version for event in shadow.events()), what="refusal")
    found = [event for event in shadow.events() if event.version == version]
    assert [event.type for event in found] == [DeploymentEventType.REFUSED]
    assert "other weights" in found[0].reason
    assert shadow.get().shadow.trial is None  # type: ignore[union-attr]


def test_worse_weights_raise_an_alarm_and_a_refit_is_promoted_when_it_has_proven_itself(
    shadow: Shadow, settings: Settings
) -> None:
    status = push_and_wait(shadow, samples(24)).shadow
    threshold = 2 * status.divergence.raw.mean
    run(settings, lambda store: store.patch(shadow.deployment.id, DeploymentPatch(drift_threshold=threshold)))
    shadow.until(lambda found: found.shadow.threshold == threshold, what="threshold")
    calm = push_and_wait(shadow, samples(48)).shadow
    assert calm is not None and (calm.drift, calm.alarms) == (DriftState.OK, 0)
    replace_weights(settings, norm=3.0)
    for _ in range(20):
        if push_and_wait(shadow, samples(MANY)).shadow.alarms:  # type: ignore[union-attr]
            break
    worse = shadow.until(lambda found: found.shadow.alarms == 1, what="alarm")
    shifted = worse.shadow.divergence.raw.mean
    assert shifted > threshold
    assert shadow.metric("hemostat_drift_alarms_total") == 1
    for _ in range(30):
        if push_and_wait(shadow, samples(MANY)).promotions:
            break
    promoted = shadow.until(lambda found: found.promotions == 1, what="promotion")
    version = promoted.active_version
    profile = ProfileStore(settings).get(version)
    assert profile.fit.origin == "online" and profile.fit.parent == "identity"
    assert profile.fit.settings["reason"] == "drift alarm"
    assert {found.name for found in profile.fit.sets} == {"fit", "choose"}
    assert all(set(found.domains) == {"traffic", "fitting-set"} for found in profile.fit.sets)
    for _ in range(10):
        after = push_and_wait(shadow, samples(MANY, version=version)).shadow
        if after is not None and after.drift is DriftState.OK:
            break
    assert after.divergence.calibrated.mean < 0.8 * shifted
    assert after.divergence.saved.low > 0
    kinds = [event.type for event in shadow.events()]
    told = [
        DeploymentEventType.ALARM,
        DeploymentEventType.FIT_STARTED,
        DeploymentEventType.TRIAL,
        DeploymentEventType.PROMOTED,
    ]
    assert [kind for kind in kinds[kinds.index(DeploymentEventType.ALARM) :] if kind in told][:4] == told


def test_a_rollback_by_hand_is_noticed_and_the_version_is_not_tried_again(shadow: Shadow, settings: Settings) -> None:
    version = shadow.get().active_version
    run(settings, lambda store: store.rollback(shadow.deployment.id, reason="by hand", manual=True))
    shadow.until(
        lambda _: any("identity came into force" in event.reason for event in shadow.events()), what="noticed change"
    )
    (shadow.folder / "trials" / version).touch()
    wait_for(
        lambda: [event for event in shadow.events() if "barred" in event.reason and event.version == version],
        what="refusal",
    )
    found = shadow.get()
    assert found.active_version == "identity" and found.shadow is not None and found.shadow.trial is None


def test_a_harmful_version_that_somebody_promoted_is_rolled_back(shadow: Shadow, settings: Settings) -> None:
    version, _ = biased(settings, 1.5, seed=5)
    run(settings, lambda store: store.patch(shadow.deployment.id, DeploymentPatch(drift_threshold=50.0)))
    before = shadow.get().rollbacks
    run(settings, lambda store: store.promote(shadow.deployment.id, version, reason="by hand", manual=True))
    shadow.until(
        lambda _: any(f"{version} came into force" in event.reason for event in shadow.events()), what="noticed change"
    )
    for _ in range(20):
        if push_and_wait(shadow, samples(MANY, version=version)).rollbacks > before:
            break
    found = shadow.until(lambda found: found.rollbacks == before + 1, what="rollback")
    assert found.active_version == "identity"
    told = next(event for event in reversed(shadow.events()) if event.type is DeploymentEventType.ROLLED_BACK)
    assert told.evidence["mean_harm"] > 0  # type: ignore[operator]


def test_weights_that_cannot_be_loaded_degrade_it_until_they_are_mended(shadow: Shadow, settings: Settings) -> None:
    target = settings.home / "served" / "model.safetensors"
    target.write_bytes(b"nonsense" * 100)

    def state(found: Deployment) -> tuple[DeploymentState, str]:
        own = next(one for one in found.running if one.role == "shadow")
        return own.state, own.reason

    shadow.until(lambda found: state(found)[0] is DeploymentState.DEGRADED, what="degraded")
    assert "model.safetensors" in state(shadow.get())[1] or "served" in state(shadow.get())[1]
    assert shadow.metric("hemostat_shadow_engine_up") == 0
    replace_weights(settings, norm=1.0)
    shadow.until(lambda found: state(found)[0] is DeploymentState.READY, what="ready again")
    push_and_wait(shadow, samples(8))


def test_a_killed_process_goes_on_where_it_was(shadow: Shadow, settings: Settings) -> None:
    before = push_and_wait(shadow, samples(16)).shadow

    def saved() -> bool:
        kept = state.load(shadow.folder, shadow.deployment.id)[0]
        return kept is not None and kept.silence.observed_at == before.last_observation_at

    wait_for(saved, what="saved state")
    shadow.kill()
    waiting = samples(8)
    shadow.push(waiting)
    shadow.start()
    shadow.ready()
    after = shadow.until(
        lambda found: found.shadow.divergence and found.shadow.divergence.requests >= before.divergence.requests + 8,
        what="scores",
    ).shadow
    assert after.divergence.requests == before.divergence.requests + 8
    assert (after.alarms, after.threshold) == (before.alarms, before.threshold)
    assert shadow.metric("hemostat_drift_alarms_total") == before.alarms


def test_while_redis_is_away_it_waits_and_then_goes_on(shadow: Shadow, redis: RedisServer) -> None:
    redis.kill()
    wait_for(lambda: shadow.metric("hemostat_shadow_redis_up") == 0, what="noticed outage")
    redis.start()
    wait_for(lambda: shadow.metric("hemostat_shadow_redis_up") == 1, what="recovery")
    push_and_wait(shadow, samples(4))


def test_nothing_of_what_was_said_is_on_disk_or_in_the_log(shadow: Shadow, redis: RedisServer) -> None:
    marked = samples(4, prompt=30)
    push_and_wait(shadow, marked)
    needles = [str(list(sample.prompt[5:10]))[1:-1] for sample in marked]
    needles += [needle.replace(" ", "") for needle in needles]
    files = [file for file in shadow.folder.rglob("*") if file.is_file()] + [shadow.log]
    assert len(files) >= 2
    for file in files:
        text = file.read_text(errors="replace")
        assert not any(needle in text for needle in needles), file


def test_steady_traffic_is_quiet_and_a_bad_version_far_below_the_drift_limit_raises_the_quiet_alarm(
    shadow: Shadow, settings: Settings
) -> None:
    patch = DeploymentPatch(drift_threshold=49.0, calibration=CalibrationMode.FROZEN)  # nobody rolls it back
    run(settings, lambda store: store.patch(shadow.deployment.id, patch))
    shadow.until(lambda found: found.shadow.threshold == 49, what="threshold")
    learned = push_and_wait(shadow, samples(2200, **SHORT)).shadow
    assert learned.divergence.raw.mean < learned.quiet_limit < 2 * learned.divergence.raw.mean
    steady = push_and_wait(shadow, samples(200, **SHORT)).shadow
    assert (steady.drift, steady.alarms) == (DriftState.OK, learned.alarms)
    assert steady.quiet_limit <= learned.quiet_limit
    version, _ = biased(settings, 1.5, seed=7)
    run(settings, lambda store: store.promote(shadow.deployment.id, version, reason="by hand", manual=True))
    shadow.until(
        lambda _: any(f"{version} came into force" in event.reason for event in shadow.events()), what="noticed change"
    )
    for _ in range(10):
        worse = push_and_wait(shadow, samples(MANY, version=version, **SHORT)).shadow
        if worse.alarms > steady.alarms:
            break
    assert (worse.drift, worse.reason) == (DriftState.ALARM, "above the quiet limit")
    assert worse.quiet_limit == steady.quiet_limit < worse.divergence.calibrated.low
    assert worse.divergence.calibrated.high < 0.1 * worse.threshold
    assert worse.e_value < worse.e_value_needed
    run(settings, lambda store: store.rollback(shadow.deployment.id, reason="by hand", manual=True))
    auto = DeploymentPatch(calibration=CalibrationMode.AUTO)
    run(settings, lambda store: store.patch(shadow.deployment.id, auto))
    shadow.until(lambda found: found.shadow.drift is not DriftState.ALARM, what="end of the alarm")


def test_it_ends_within_seconds_and_leaves(shadow: Shadow) -> None:
    assert shadow.terminate() == 0  # it was not killed
    assert [one for one in shadow.get().running if one.role == "shadow"] == []
