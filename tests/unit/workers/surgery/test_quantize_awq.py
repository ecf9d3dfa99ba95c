import pytest
import torch

from tests.support import compressor
from tests.support.compressor import oneshot
from tests.support.quantizing import divergence, operate, text
from workers.surgery.quantize_awq import STEPS, Inputs, candidates, search
from workers.surgery.quantize_folding import Pair
from workers.surgery.quantize_grid import fit


def problem():
    """(weight, inputs) with a few channels of large activations, as language models have them."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1500, 64, generator=draw)
    x[:, ::16] *= 30
    return torch.randn(48, 64, generator=draw) * 0.05, x


def test_candidates_are_powers_of_the_mean_normalized():
    found = candidates(torch.tensor([1.0, 4.0, 16.0, 0.0]))
    assert len(found) == STEPS == 20
    assert found[0].tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(found[-1], torch.tensor([1.0, 4.0, 16.0, 1.0]) / 4)


def test_the_error_is_that_of_the_layers_output_and_the_least_is_chosen():
    """Against running all of the text through, in float64."""
    weight, x = problem()
    inputs = Inputs(64)
    for part in x.split(400):
        inputs.see(part)
    mean = inputs.channels.absolute_I / inputs.channels.tokens
    s, least, plain = search(
        [weight[:20], weight[20:]],
        inputs.moment.mean(),
        mean,
        Pair(("one", "other")),
        bits=3,
        group_size=32,
        symmetric=False,
    )

    def error(scale):
        made = fit(weight * scale, bits=3, group_size=32, symmetric=False, dtype=torch.bfloat16).nearest(weight * scale)
        moved = x.double() @ (made.double() / scale.double() - weight.double()).T
        return float(moved.square().sum(1).mean())

    errors = [error(candidate) for candidate in candidates(mean)]
    assert least == pytest.approx(min(errors), rel=1e-3)
    assert plain == pytest.approx(errors[0], rel=1e-3)
    assert torch.equal(s, candidates(mean)[errors.index(min(errors))])
    assert least < 0.5 * plain
    assert bool((s[::16] > s.median()).all())


def test_llm_compressor_finds_the_same(outliers):
    """Where one layer alone stands behind, its error is what llm-compressor searches by too (without `duo_scaling`,
    which is not the paper's): the same s, and the same weights on the same grid."""
    from compressed_tensors.quantization import forward_quantize
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.awq.mappings import AWQMapping

    grid = {"bits": 3, "group_size": 32, "symmetric": False}  # its symmetric grids have another step than ours
    source, seen = outliers(num_key_value_heads=2), text(8, 64)
    scheme = {"num_bits": 3, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32}
    behind = {"mlp.up_proj": "mlp.down_proj", "self_attn.v_proj": "self_attn.o_proj"}
    model, before = oneshot(
        source,
        seen.tokens_NL,
        [
            AWQModifier(
                duo_scaling=False,
                mappings=[AWQMapping(f"re:.*{first}", [f"re:.*{second}"]) for first, second in behind.items()],
            ),
            QuantizationModifier(config_groups={"all": {"targets": ["Linear"], "weights": scheme}}, ignore=["lm_head"]),
        ],
    )
    theirs, entering = model.state_dict(), compressor.inputs(source, seen.tokens_NL)
    chosen = set()
    for layer in range(3):
        for first, second in behind.items():
            rows, name = f"model.layers.{layer}.{first}", f"model.layers.{layer}.{second}"
            inputs = Inputs(entering[name].shape[1])
            inputs.see(entering[name])
            mean = inputs.channels.absolute_I / inputs.channels.tokens
            weight = before[f"{name}.weight"]
            pair = Pair((name,), rows=rows)
            s, *_ = search([weight], inputs.moment.mean(), mean, pair, dtype=torch.float32, **grid)
            scales = before[f"{rows}.weight"] / theirs[f"{rows}.weight"]
            torch.testing.assert_close(s[:, None].expand_as(scales), scales, rtol=1e-4, atol=0)
            module = model.get_submodule(name)
            rounded = forward_quantize(module, module.weight, "weight", module.quantization_scheme.weights)
            nearest = fit(weight * s, dtype=torch.float32, **grid).nearest(weight * s)
            other = (nearest - rounded).abs() > 1e-5
            assert int(other.sum()) <= 2e-3 * other.numel()  # halves, and sums in another order
            chosen.add(next(index for index, one in enumerate(candidates(mean)) if torch.equal(one, s)))
    assert len(chosen) > 1  # something was there to be found


def test_layers_beside_those_addressed_keep_their_function(tiny, store):
    """q alone is rounded; k and v are scaled with it, since the norm before is all three's."""
    step = {"type": "quantize.awq", "bits": 8, "group_size": 32, "modules": ["q_proj"]}
    with operate(tiny(), store, step) as made:
        assert divergence(tiny(), made.path) < 1e-3
        changes = {change.name: change for change in made.manifest.tensors}
    assert changes["model.layers.0.self_attn.q_proj.weight"].bits_per_weight == 8 + 24 / 32
    assert changes["model.layers.0.self_attn.k_proj.weight"].bits_per_weight == 16
    assert max(change.reconstruction_error or 0 for change in changes.values()) < 0.01
