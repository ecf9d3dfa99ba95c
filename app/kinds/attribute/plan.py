"""What can be refused of an attribution before it is queued, and what it will take: from shapes and settings alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from app.contracts import blocks
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.attribute.request import AttributeRequest
from app.kinds.estimates import Cost
from app.kinds.preflight import Checked
from app.models import pace
from app.models.checkpoint import CheckpointInfo
from app.models.layer_names import in_layer
from app.models.pace import Pace
from app.models.packing import kept_packed
from app.models.shapes import LAYOUTS
from app.models.steps import check_recipe

# Passes over the subset for each part that is looked into, and for all of them together: control, twin, restoring.
LOOKS, TOGETHER = 1.5, 3.0
# What goes on inside is measured on so much of the subset: attention of every head is computed for it.
INNER_TOKENS, INNER_WINDOWS = 2048, 8
# Attention distributions of all heads over a window are in memory at once, of both models: windows are cut for it.
INNER_BYTES: Final = 512 * 2**20
# Passes over these tokens: both models to their borders and through eager attention, the candidate on the reference's
# states, and all matched layers at once.
INNER_PASSES: Final = 6.0
# Of the alignment alone: both models to their borders, all matched layers at once and a control. A gap is put in and
# undone.
ALIGNED_PASSES, GAP_PASSES = 4.0, 2.0
# Measured with SmolLM2 (135M parameters) through transformers' layers one by one. In bfloat16: 24.9 passes over 4,096
# tokens in 110 s, of `make bench` on the two cores of `pace`. In float32 with all that is summed up inside: 0.37 of it,
# by processor time on one core (161 against 436 tokens per second, 512 tokens).
CPU_SWAPPED_TOKENS_PER_SECOND, CPU_INNER_TOKENS_PER_SECOND = 925.0, 340.0
# Parameters × tokens of a forward pass.
SWAPPED: Final = pace.Part(CPU_SWAPPED_TOKENS_PER_SECOND * pace.PARAMETERS, bf16=2)
INNER: Final = pace.Part(CPU_INNER_TOKENS_PER_SECOND * pace.PARAMETERS, float32=2)
# Parameters: each forward pass reads the weights again, which the rates of a CPU hold.
READ: Final = pace.Part(math.inf, disk=2)


def check(request: AttributeRequest, checked: Checked) -> None:
    """Raises `HemostatError` if parts cannot be swapped."""
    check_attribution(request, checked.reference, checked.candidate)


def cost(request: AttributeRequest, cost: Cost) -> None:
    """Adds the swaps, and what is measured inside."""
    made = check_recipe(cost.candidate, request.candidate.recipe, pointer="/candidate/recipe", reference=cost.reference)
    found = attribution_cost(request, (cost.reference, made), cost.tokens, cost.steps)
    cost.seconds += found.seconds
    cost.assumptions += found.assumptions


def check_attribution(request: AttributeRequest, reference: CheckpointInfo, candidate: CheckpointInfo) -> None:
    """Returns if parts can be swapped, or gaps measured between two depths; `candidate` is what its recipe makes of it.

    Raises `HemostatError` with the pointer of the field:

    CHECKPOINT_UNSUPPORTED  the layout of the architecture is not known, or the hidden sizes differ.
    UNKNOWN_MODULE          the reference has no such layer.
    INVALID_REQUEST         experts of a dense model, a level or direction twice, a window of too few tokens.
    """
    for pointer, info in (("/reference/model", reference), ("/candidate/model", candidate)):
        if formats := kept_packed(info.quantization):
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                f"the weights of {info.path.name} are packed as {formats}, which Hemostat cannot unpack: it cannot "
                "run layer by layer",
                hint="use `hemostat compare`",
                pointer=pointer,
            )
        if blocks.SECTION in info.config:
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                f"{info.path.name} has block corrections, which are not in the weights, so its parts cannot be swapped",
                hint="use `hemostat compare`, or attribute the checkpoint without them",
                pointer=pointer,
            )
        if info.architecture not in LAYOUTS:
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                f"the layout of {info.architecture} is not known, so it cannot run layer by layer",
                hint="attribution takes " + ", ".join(sorted(LAYOUTS)),
                pointer=pointer,
            )
    if reference.hidden_size != candidate.hidden_size:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"the candidate's hidden size is {candidate.hidden_size} and the reference's is {reference.hidden_size}: "
            f"no layer of {request.candidate.model} fits into {request.reference.model}",
            hint="use `hemostat compare`",
            pointer="/candidate/model",
        )
    for index, layer in enumerate(request.layers or ()):
        if layer >= reference.layers:
            raise HemostatError(
                ErrorCode.UNKNOWN_MODULE,
                f"the reference has no layer {layer}",
                hint=f"its layers are 0 to {reference.layers - 1}",
                pointer=f"/layers/{index}",
            )
    for field, given in (("levels", request.levels), ("directions", request.directions)):
        for index, one in enumerate(given):
            if one in given[:index]:
                raise HemostatError(
                    ErrorCode.INVALID_REQUEST,
                    f"{field} has {one} twice",
                    hint="name each once",
                    pointer=f"/{field}/{index}",
                )
    if request.levels == ("expert",) and not LAYOUTS[reference.architecture].mixture:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{reference.architecture} has no experts, and the request names no other parts",
            hint="name other levels, or leave `levels` out to use every level of the model",
            pointer="/levels/0",
        )
    if request.window < 8:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"parts are swapped on windows of at least 8 tokens, and the window is {request.window}",
            hint="give a larger window",
            pointer="/window",
        )


@dataclass(frozen=True)
class AttributionCost:
    """`passes` of the whole model over `tokens` tokens. `inner` tokens go through a whole model once for what is
    measured inside. `bytes` of all states at the borders, `seconds` of all. `assumptions` are the same in words."""

    passes: float
    tokens: int
    inner: float
    bytes: int
    seconds: float
    assumptions: tuple[str, ...]


def inner_windows(infos: tuple[CheckpointInfo, CheckpointInfo], length: int) -> tuple[int, int]:
    """How many windows are measured inside at most, and to how many tokens those of `length` are cut."""
    heads = max(int(info.config["num_attention_heads"]) for info in infos)
    cut = min(length, math.isqrt(INNER_BYTES // (4 * heads)))
    return max(INNER_WINDOWS, INNER_TOKENS // cut), cut


def attribution_cost(
    request: AttributeRequest,
    infos: tuple[CheckpointInfo, CheckpointInfo],
    tokens: int,
    here: Pace,
) -> AttributionCost:
    """What swaps and internals take beside the engine's passes, at most; `tokens` of the whole text."""
    subset = min(request.tokens, tokens)
    passes, size = 0.0, 0
    assumptions = ["no part can be swapped between models of two depths"]
    unswapped = infos[0].layers != infos[1].layers
    if not unswapped:
        search = _search(request, infos[0])
        looks = request.top * (LOOKS + (1.0 if "restore" in request.directions else 0.0) + 0.5 * request.twins)
        passes = 2 + search + looks + TOGETHER
        size = sum(2 * info.hidden_size * (info.layers + 1) for info in infos) * subset
        assumptions = [
            f"at most {search:.3g} forward passes over {subset} tokens find the first parts, and about "
            f"{passes - search:.0f} look into them",
            "each forward pass reads the weights from the disk"
            if here.card
            else f"transformers' layers take {CPU_SWAPPED_TOKENS_PER_SECOND:g} tokens/s with "
            f"{pace.PARAMETERS / 1e6:.1f}M parameters",
            f"hidden states at the layer borders of both models take {size / 2**20:.0f} MiB of disk while the job runs",
        ]
    inner, read = 0.0, passes
    if request.internals or unswapped:
        through, inside, more = _inside(request, infos, subset)
        inner, read, size = through * inside, passes + through, size + more
        rate = "" if here.card else f" at {CPU_INNER_TOKENS_PER_SECOND:g} tokens/s"
        left = " (`internals: false` or --no-internals leaves this out)" if not unswapped else ""
        assumptions.append(
            f"the models are compared inside with {inner:.0f} tokens in float32{rate} and {more / 2**20:.0f} MiB of "
            f"states{left}"
        )
    parts = ((SWAPPED, passes * subset), (INNER, inner), (READ, read))
    seconds = sum(here.seconds(part, units * infos[0].parameters) for part, units in parts)
    return AttributionCost(passes, subset, inner, size, seconds, tuple(assumptions))


def _search(request: AttributeRequest, info: CheckpointInfo) -> float:
    """Passes of the search at most: its budget, or one swap of every part of the layers asked for. A swap runs the
    layers from the part on and two products with the head."""
    if request.layers is None:
        return request.budget
    tensors = [(found.layer, tensor.elements) for name, tensor in info.tensors.items() if (found := in_layer(name))]
    head = info.vocabulary * info.hidden_size * info.layers / max(1, sum(elements for _, elements in tensors))
    groups = int(info.config.get("num_key_value_heads") or info.config["num_attention_heads"])
    within = not {"module", "norm", "expert"}.isdisjoint(request.levels)
    passes = 0.0
    for layer in set(request.layers):
        parts = ("layer" in request.levels) + groups * ("heads" in request.levels)
        parts += within * sum(of == layer for of, _ in tensors)
        passes += parts * (info.layers - layer + 2 * head) / (info.layers + head)
    return min(request.budget, passes)


def _inside(
    request: AttributeRequest, infos: tuple[CheckpointInfo, CheckpointInfo], subset: int
) -> tuple[float, int, int]:
    """Passes of a whole model, the tokens of each, and bytes of states in float32. As many gaps are expected as the
    depths are apart."""
    windows, length = inner_windows(infos, request.window)
    tokens = min(subset, windows * length)
    passes = INNER_PASSES if request.internals else ALIGNED_PASSES
    passes += GAP_PASSES * abs(infos[0].layers - infos[1].layers)
    return passes, tokens, sum(4 * info.hidden_size * (info.layers + 1) for info in infos) * tokens
