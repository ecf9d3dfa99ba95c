"""Entry point of the group `vllm.general_plugins`: vLLM calls `register` in each of its processes.

In a process that was not started for a deployment it does nothing.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
from typing import Final

from workers.engine import vllm_names as vllm
from workers.engine.serving.config import ServingConfig

NAME: Final = "hemostat"
_PR_SET_PDEATHSIG: Final = 1


def register() -> None:
    """Puts the calibrated class in the place of the in-tree one, under the architecture's own name.

    RuntimeError where model runner V2 could be chosen: it has its rows in another order.
    """
    config = ServingConfig.from_environment()
    if config is None:
        return
    if os.environ.get("VLLM_USE_V2_MODEL_RUNNER") != "0":
        raise RuntimeError(
            "a calibrated server cannot start: VLLM_USE_V2_MODEL_RUNNER must be 0, model runner V2 keeps its rows in "
            "another order and refuses the logits processor"
        )
    keep_requests_out_of_the_log()
    end_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # it died before this process could ask for the signal
    register_model(
        config.architecture,
        single_rows_apart=config.single_rows_apart,
        float32_products=config.float32_products,
    )


def register_model(architecture: str, *, single_rows_apart: bool = False, float32_products: bool = True) -> None:
    """Registers the calibrated subclass of an architecture's in-tree class. CHECKPOINT_UNSUPPORTED: there is none."""
    from workers.engine import mending
    from workers.engine.serving import engines
    from workers.engine.serving.model import calibrated

    mending.match_in_linear_time()
    mending.ask_for_tiles()
    mending.draw_for_whole_prompts_only()
    if float32_products:
        mending.multiply_in_float32(single_rows_apart=single_rows_apart)
    engines.keep_caches_apart()
    engines.hand_on_ends()
    mending.check_known(architecture)
    registry = vllm.ModelRegistry
    registry.register_model(architecture, calibrated(registry.models[architecture].load_model_cls()))


def keep_requests_out_of_the_log() -> None:
    """An engine that dies does not write its last batch down: stop strings and grammars in it are its clients' text."""
    logging.getLogger(vllm.NAMES["dump_input"]).disabled = True


def end_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends; so the engine goes with its server."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
