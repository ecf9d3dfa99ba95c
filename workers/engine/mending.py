"""What vLLM 0.32 lacks, or gets wrong, when engines come, go and change their weights in one process."""

import os
from collections.abc import Callable
from functools import cache, wraps
from inspect import unwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.models.nearest import nearest
from app.models.patterns import matches
from workers.engine import vllm_names as vllm
from workers.products import lacking, made_up


def match_in_linear_time() -> None:
    """vLLM and compressed-tensors match patterns of a quantization_config, which are strangers', with engines that
    backtrack: one pattern can take for ever."""
    unpack_in_linear_time()
    _match_linearly(vllm.config_utils)


def unpack_in_linear_time() -> None:
    """The same of compressed-tensors alone, which transformers calls."""
    from compressed_tensors.utils import match

    _match_linearly(match)


def _match_linearly(module: Any) -> None:
    module.re = SimpleNamespace(**vars(module.re) | {"match": lambda pattern, name: matches(pattern, name) or None})


def keep_scales_alive() -> None:
    """The W8A8 kernel points at scales that it does not own: after a weight swap, at freed ones. Now it owns them."""
    operations = vllm.custom_ops
    plain = operations.create_onednn_scaled_mm
    if hasattr(plain, "keeps_scales"):
        return

    @wraps(plain)
    def create(weight: Any, weight_scales: Any, *rest: Any, **named: Any) -> Any:
        handler = plain(weight, weight_scales, *rest, **named)
        handler.weight_scales = weight_scales
        return handler

    create.keeps_scales = True  # type: ignore[attr-defined]
    operations.create_onednn_scaled_mm = create


def ask_for_tiles() -> None:
    """Linux lends a process the AMX tiles on request. vLLM's attention uses them without having asked: where no product
    of oneDNN, which asks, came before, the process ends with SIGILL."""
    import torch

    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()


def draw_for_whole_prompts_only() -> None:
    """A prompt that is read in parts: of each part but the last vLLM draws a token, and takes back what that drew from
    the request's generator. On a CPU it cannot, and the engine dies. Without its generator such a row draws nothing
    from it, so the same seed gives the same text however the prompt was cut.
    """
    plain = vllm.CPUModelRunner._sample
    if hasattr(plain, "whole_prompts_only"):
        return

    @wraps(plain)
    def sample(runner: Any, *given: Any) -> Any:
        batch = runner.input_batch
        for row, request in enumerate(batch.req_ids):
            generator = runner.requests[request].generator
            if runner.discard_request_mask.np[row]:
                batch.generators.pop(row, None)
            elif generator is not None:
                batch.generators[row] = generator
        return plain(runner, *given)

    sample.whole_prompts_only = True  # type: ignore[attr-defined]
    vllm.CPUModelRunner._sample = sample


def multiply_in_float32(*, single_rows_apart: bool = False) -> None:
    """Where the processor has no instructions for 16-bit products, those of vLLM's linear layers are made up of others.

    Their weights are packed as float32 there (twice the memory) and each product is rounded once. This is four times as
    fast, and more for many rows. With AVX-512 a single row takes twice as long. `single_rows_apart`: layers made from
    now on keep their 16-bit weights beside, for rows that come alone, as those of one stream of answers do. Not where
    the same text must score the same in every batch.
    """
    utils = vllm.layer_utils
    dispatch = utils.dispatch_cpu_unquantized_gemm
    if isinstance(dispatch, _Widening):
        dispatch.single_rows_apart = single_rows_apart
    elif vllm.custom_ops._supports_onednn:
        utils.dispatch_cpu_unquantized_gemm = _Widening(dispatch, single_rows_apart)


class _Widening:
    """Replaces `plain`, vLLM's choice of how a layer multiplies on a CPU."""

    def __init__(self, plain: Callable[[Any, bool], None], single_rows_apart: bool) -> None:
        self._plain, self.single_rows_apart = plain, single_rows_apart

    def __call__(self, layer: Any, remove_weight: bool) -> None:
        import torch

        weight = layer.weight
        if weight.is_meta or weight.ndim != 2 or not lacking(weight.dtype):
            self._plain(layer, remove_weight)
            return
        apart = self.single_rows_apart and made_up(weight.dtype)
        if remove_weight:
            product = _Packed(weight, apart)
            layer.cpu_linear = lambda x, _, bias: product(x, bias)
            layer.weight = torch.nn.Parameter(weight.new_empty(0), requires_grad=False)
            return
        kept: list[_Packed] = []  # an embedding is packed when it is first multiplied, which most are never

        def late(x: Any, weight: Any, bias: Any) -> Any:
            if not kept:
                kept.append(_Packed(weight, apart))
            return kept[0](x, bias)

        layer.cpu_linear = late


class _Packed:
    """A weight (O, I) packed as float32, and `apart` in its own dtype too; called with x (rows, I) and a bias."""

    def __init__(self, weight: Any, apart: bool) -> None:
        operations = self._operations = vllm.custom_ops
        self._wide = operations.create_onednn_mm(weight.detach().float().t(), 32)
        self._single = operations.create_onednn_mm(weight.detach().t(), 32) if apart else None

    def __call__(self, x: Any, bias: Any) -> Any:
        multiply = self._operations.onednn_mm
        if self._single is not None and x.numel() == x.shape[-1]:
            return multiply(self._single, x, bias)
        return multiply(self._wide, x.float(), None if bias is None else bias.float()).to(x.dtype)


def override_kernels_once() -> None:
    """On a CPU each engine start looks through every module for Triton kernels to replace, and wraps them once more.

    Modules imported later take the replaced ones anyway.
    """
    kind = type(vllm.current_platform)
    override = kind.register_triton_kernel_overrides
    if not hasattr(override, "once"):
        once = cache(override)
        once.once = True  # type: ignore[attr-defined]
        kind.register_triton_kernel_overrides = staticmethod(once)


def count_ranks_plainly() -> None:
    """vLLM compiles the count of tokens above each of a prompt's, which takes seconds; no one here reads ranks."""
    sampler = vllm.sampler
    sampler.batched_count_greater_than = unwrap(sampler.batched_count_greater_than)


def inspect_in_process() -> None:
    """vLLM would look at a model class in a second process first, which takes ten seconds."""

    def inspect(lazy: Any) -> Any:
        return vllm.ModelInfo.from_model_cls(lazy.load_model_cls())

    vllm.LazyModel.inspect_model_cls = inspect


def check_known(architecture: str) -> None:
    """Raises CHECKPOINT_UNSUPPORTED for an architecture that vLLM does not know."""
    registry = vllm.ModelRegistry
    if architecture not in registry.models:
        known = [name for name in registry.get_supported_archs() if name.endswith("ForCausalLM")]
        near = nearest(architecture, known)
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"vLLM has no architecture {architecture!r}",
            hint=f"the nearest of its {len(known)} causal language models is {near or 'none'}",
        )


def take_states(runner: Any, model: Any) -> None:
    """Room for the states that a later pipeline stage takes over. vLLM makes it when it warms up, which it does not do
    on a CPU."""
    if runner.intermediate_tensors is None and not vllm.get_pp_group().is_first_rank:
        runner.intermediate_tensors = model.make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
        )


def unlink_shared_memory() -> None:
    """On a CPU the parts of a model exchange states through named memory that vLLM 0.32 never unlinks: it would outlive
    them. Called when all of them have mapped it."""
    identifier = os.environ.get("VLLM_DIST_IDENT")
    if identifier and vllm.parallel_state.get_world_group().world_size > 1:
        for file in Path("/dev/shm").glob(f"{identifier}-*"):  # noqa: S108 - it is where the kernel shows it
            file.unlink(missing_ok=True)


def renew_groups(config: Any) -> None:
    """Lets vLLM make its groups again where a mixture of experts needs one that the engines so far did not.

    Engines look their groups up when they use them, so those that run go on with the new ones.
    """
    parallel_state = vllm.parallel_state
    if config.model_config.is_moe and parallel_state.model_parallel_is_initialized() and parallel_state._EP is None:
        parallel_state.destroy_model_parallel()


def destroy_groups() -> None:
    """Destroys vLLM's process groups, which no engine may need any more."""
    vllm.parallel_state.destroy_model_parallel()
    vllm.parallel_state.destroy_distributed_environment()


def forget_packed_experts(vllm_config: Any, model: Any) -> None:
    """Before a swap: on a CPU the experts' weights are packed only when their kernel is built, so it is built again."""
    if vllm_config.device_config.device_type != "cpu":
        return
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if isinstance(method, vllm.UnquantizedFusedMoEMethod):
            method.moe_kernel = None
