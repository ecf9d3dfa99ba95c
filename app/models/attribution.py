"""What can be refused of an attribution before it is queued, and what it will take: from shapes and settings alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.attribute.request import AttributeRequest
from app.models.checkpoint import CheckpointInfo
from app.models.layer_names import in_layer
from app.models.packing import kept_packed
from app.models.shapes import LAYOUTS

# Passes of both models over the subset, and of what is looked into, beside the budget: controls, twins, restoring,
# pairs and all first parts together, each about half a pass and more.
LOOKS, PAIRS, TOGETHER = 1.5, 10, 3.0
# What goes on inside is looked at on so much of the subset: attention of every head is computed for it.
INNER_TOKENS, INNER_WINDOWS = 2048, 8
# Attention distributions of all heads over a window are in memory at once, of both models: windows are cut for it.
INNER_BYTES: Final = 512 * 2**20
# Self-repair is measured on about so many tokens of these.
REPAIR_TOKENS: Final = 1024
# Passes over these tokens: both models to their borders and through eager attention, the candidate on the reference's
# states, all matched layers at once, and the reference once more for self-repair.
INNER_PASSES: Final = 7.0
# Where no part can be swapped, layers are aligned all the same: both models to their borders, all matched layers at
# once and a control, and each gap put in and undone.
ALIGNED_PASSES, GAP_PASSES = 4.0, 2.0
# Between two widths layers are run through a map, and that is run by itself, too: a pass more a gap, and three for what
# both models have, whose map is run by itself in either model.
MATCHED_MAP_PASSES, GAP_MAP_PASSES = 3.0, 1.0
# Beside the spans of matched layers: the reference from its first border and two heads, the candidate's head, and the
# reference once more from the candidate's embeddings.
MAPPED_PASSES: Final = 3.0
# Maps of a span: of two places, there and back, five folds. A map's seconds were measured on one core in float64, of
# 1,664 tokens and 576, 960 and 1,536 dimensions on either side: products and eigenvalues, within a sixth of this.
MAPS_OF_SPAN: Final = 20
CPU_MAP_PRODUCTS_PER_SECOND, CPU_MAP_CUBED_PER_SECOND = 1.5e10, 3.1e9
# Measured with SmolLM2 (135M parameters) through transformers' layers one by one. In bfloat16: 24.9 passes over 4,096
# tokens in 110 s, of `make bench` on the two cores that `pace` speaks of. In float32 with all that is summed up inside:
# 0.37 of it, by processor time on one core (161 against 436 tokens a second, 512 tokens).
CPU_SWAPPED_TOKENS_PER_SECOND, CPU_INNER_TOKENS_PER_SECOND = 925.0, 340.0


def check_attribution(request: AttributeRequest, reference: CheckpointInfo, candidate: CheckpointInfo) -> None:
    """Returns where parts can be swapped, or told why not in the report; `candidate` is what its recipe makes of it.

    Raises `HemostatError` with the pointer of the field: CHECKPOINT_UNSUPPORTED (an architecture whose layout is not
    known: it cannot be run layer by layer), UNKNOWN_MODULE (a layer that the reference has not), INVALID_REQUEST
    (experts of a model that has none, a level or direction twice, a window without a token that is predicted).
    """
    for pointer, info in (("/reference/model", reference), ("/candidate/model", candidate)):
        if formats := kept_packed(info.quantization):
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                f"its weights are packed as {formats}, which is not unpacked here: it cannot be run layer by layer",
                hint="compare it instead",
                pointer=pointer,
            )
        if info.architecture not in LAYOUTS:
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                f"the layout of {info.architecture} is not known, so that it cannot be run layer by layer",
                hint="attribution takes " + ", ".join(sorted(LAYOUTS)),
                pointer=pointer,
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
                    f"{field} holds {one} twice",
                    hint="name each once",
                    pointer=f"/{field}/{index}",
                )
    if request.levels == ("expert",) and not LAYOUTS[reference.architecture].mixture:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{reference.architecture} has no experts, and nothing else is looked at",
            hint="name other levels, or none: every level that the model has is looked at then",
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
    """`passes` of the whole model over `tokens` tokens, `inner` tokens that go through a whole model once for what is
    measured inside, `bytes` of all states at the borders, those inside included, `seconds` of all; `told` says so in
    words."""

    passes: float
    tokens: int
    inner: float
    bytes: int
    seconds: float
    told: tuple[str, ...]


def inner_windows(infos: tuple[CheckpointInfo, CheckpointInfo], length: int) -> tuple[int, int]:
    """How many windows are looked at inside at most, and to how many tokens those of `length` are cut."""
    heads = max(int(info.config["num_attention_heads"]) for info in infos)
    cut = min(length, math.isqrt(INNER_BYTES // (4 * heads)))
    return max(INNER_WINDOWS, INNER_TOKENS // cut), cut


def attribution_cost(
    request: AttributeRequest,
    infos: tuple[CheckpointInfo, CheckpointInfo],
    tokens: int,
    *,
    reference_parameters: float,
) -> AttributionCost:
    """What swapping and looking inside take beside the engine's passes, at most; `tokens` of the whole text. Seconds
    are in proportion to `reference_parameters`, those of the model that was measured."""
    subset = min(request.tokens, tokens)
    looks = request.top * (LOOKS + (1.0 if "restore" in request.directions else 0.0) + 0.5 * request.twins)
    search = _search(request, infos[0])
    passes = 2 + search + looks + min(PAIRS, math.comb(request.top, 2)) / 2 + TOGETHER
    size = sum(2 * info.hidden_size * (info.layers + 1) for info in infos) * subset
    if infos[0].hidden_size != infos[1].hidden_size or infos[0].layers != infos[1].layers:
        return _unswapped(request, infos, subset, reference_parameters=reference_parameters)
    inside, inner_size, told = _inside(request, infos, subset) if request.internals else (0.0, 0, ())
    slower = infos[0].parameters / reference_parameters
    seconds = slower * (passes * subset / CPU_SWAPPED_TOKENS_PER_SECOND + inside / CPU_INNER_TOKENS_PER_SECOND)
    return AttributionCost(
        passes,
        subset,
        inside,
        size + inner_size,
        seconds,
        (
            f"at most {search:.3g} forward passes over {subset} tokens to find the first parts, and about "
            f"{passes - search:.0f} to look into them, through transformers' layers at "
            f"{CPU_SWAPPED_TOKENS_PER_SECOND:g} tokens/s for {reference_parameters / 1e6:.1f}M parameters",
            f"hidden states at the layer borders of both models take {(size + inner_size) / 2**20:.0f} MiB of disk "
            "while the job runs",
            *told,
        ),
    )


def mapped_span_passes(infos: tuple[CheckpointInfo, CheckpointInfo], first: int, layers: int) -> float:
    """Forward passes of the reference that a span of matched layers takes at most, run in it through a map between two
    widths: the candidate's layers by the maps of two places, the reference twice from where it begins (what the map
    loses, and what went wrong before) and twice from behind it (with the layers, and with what the map leaves of the
    reference's), and six heads. A pass is every layer and one product with the head; `first` is the reference's first
    layer of the span."""
    info, other = infos
    inside, theirs = (_inside_layers(one) for one in infos)
    head = info.vocabulary * info.hidden_size * info.layers / max(1.0, inside)
    each = theirs / max(1, other.layers) / max(1.0, inside / info.layers)
    behind = info.layers - first - layers
    return (2 * layers * each + 2 * layers + 4 * behind + 6 * head) / (info.layers + head)


def _inside_layers(info: CheckpointInfo) -> float:
    """Elements of all layers' tensors."""
    return float(sum(tensor.elements for name, tensor in info.tensors.items() if in_layer(name)))


def _mapped(
    request: AttributeRequest, infos: tuple[CheckpointInfo, CheckpointInfo], tokens: int
) -> tuple[float, float]:
    """Forward passes that matched layers take at most, and seconds of fitting maps for them on one core: of every
    layer of the shallower model by itself, or as much of that as the budget is."""
    matched = min(info.layers for info in infos)
    costs = [mapped_span_passes(infos, layer, 1) for layer in range(matched)]
    spent = min(request.budget, sum(costs))
    # the cheapest are the last
    spans = min(float(matched), spent / min(costs))
    widths = [info.hidden_size for info in infos]
    products = 2.0 * tokens * (widths[0] + widths[1]) * max(widths)
    map_ = products / CPU_MAP_PRODUCTS_PER_SECOND + max(widths) ** 3 / CPU_MAP_CUBED_PER_SECOND
    return MAPPED_PASSES + spent, spans * MAPS_OF_SPAN * map_


def _search(request: AttributeRequest, info: CheckpointInfo) -> float:
    """Passes that the search takes at most: its budget, or what every part of the layers asked for takes, each swapped
    once on the whole subset: the layers from it on and two products with the head."""
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


def _unswapped(
    request: AttributeRequest,
    infos: tuple[CheckpointInfo, CheckpointInfo],
    subset: int,
    *,
    reference_parameters: float,
) -> AttributionCost:
    """Of models of two depths or widths, whose parts are not swapped: what goes on inside or at least the alignment,
    whose gaps are the parts then, and of two widths what matched layers cost, run through a map."""
    windows, length = inner_windows(infos, request.window)
    tokens = min(subset, windows * length)
    told: tuple[str, ...] = ("no part can be swapped between models of two depths or widths",)
    if request.internals:
        inside, size, more = _inside(request, infos, subset)
        told += more
    else:
        inside = tokens * (ALIGNED_PASSES + _gap_passes(infos))
        size = sum(4 * info.hidden_size * (info.layers + 1) for info in infos) * tokens
        told += (
            f"layers are aligned and every gap is measured: at most {inside / tokens:g} forward passes in float32 over "
            f"{tokens} tokens at {CPU_INNER_TOKENS_PER_SECOND:g} tokens/s, with {size / 2**20:.0f} MiB of states",
        )
    fitting = 0.0
    if infos[0].hidden_size != infos[1].hidden_size:
        passes, fitting = _mapped(request, infos, tokens)
        inside += passes * tokens
        told += (
            "layers that match are run in the model of the other width through maps, each or, where the budget does "
            f"not reach for that, spans of them: at most {passes:.3g} such passes over these tokens, and about "
            f"{fitting:.0f} s to fit the maps, as measured on one core",
        )
    slower = infos[0].parameters / reference_parameters
    seconds = slower * inside / CPU_INNER_TOKENS_PER_SECOND + fitting
    return AttributionCost(0.0, subset, inside, size, seconds, told)


def _gap_passes(infos: tuple[CheckpointInfo, CheckpointInfo]) -> float:
    """Passes that the gaps between models of two depths take, with maps where the widths differ: of as many gaps as the
    depths are apart. More can only be known from the alignment."""
    gaps = abs(infos[0].layers - infos[1].layers)
    if not gaps or infos[0].hidden_size == infos[1].hidden_size:
        return GAP_PASSES * gaps
    return MATCHED_MAP_PASSES + (GAP_PASSES + GAP_MAP_PASSES) * gaps


def _inside(
    request: AttributeRequest, infos: tuple[CheckpointInfo, CheckpointInfo], subset: int
) -> tuple[float, int, tuple[str, ...]]:
    """Tokens that go through a whole model once, bytes of states in float32, and what that is in words. Self-repair
    takes half of the layers and two heads for each layer. Where the depths differ, gaps are measured, too."""
    info = infos[0]
    windows, length = inner_windows(infos, request.window)
    tokens = min(subset, windows * length)
    repaired = min(tokens, REPAIR_TOKENS)
    head = min(1.0, info.vocabulary * info.hidden_size / info.parameters)
    repair = info.layers * ((1 - head) / 2 + 2 * head)
    size = _inner_bytes(infos, tokens, length)
    passes = INNER_PASSES + _gap_passes(infos)
    left = "it out"
    if infos[0].layers != infos[1].layers or infos[0].hidden_size != infos[1].hidden_size:
        left = "out all of it but the alignment, whose gaps are the parts"
    told = (
        f"what goes on inside comes beside the budget: {passes:g} forward passes in float32 over {tokens} "
        f"tokens, with attention maps of every head, and about {repair:.0f} over {repaired} to see what later layers "
        f"repair, at {CPU_INNER_TOKENS_PER_SECOND:g} tokens/s for as many parameters, with {size / 2**20:.0f} MiB of "
        f"those states; `internals: false` (--no-internals) leaves {left}"
    )
    return passes * tokens + repair * repaired, size, (told,)


def _inner_bytes(infos: tuple[CheckpointInfo, CheckpointInfo], tokens: int, length: int) -> int:
    """Both models' states at every border of `tokens` tokens in windows of `length`; for self-repair, which needs
    models of one width, the reference's once more and a copy for each layer, of the windows that it is measured on."""
    state = 4 * infos[0].hidden_size
    size = sum(4 * info.hidden_size * (info.layers + 1) for info in infos) * tokens
    if infos[0].hidden_size != infos[1].hidden_size:
        return size
    repaired = min(tokens, max(1, round(REPAIR_TOKENS / length)) * length)
    return size + state * (infos[0].layers + 1 + max(info.layers for info in infos)) * repaired
