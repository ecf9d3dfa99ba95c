"""With vLLM's own products, rows without a version against plain vLLM in a process that has nothing of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from workers.engine.serving.arguments import server_environment
from workers.engine.serving.config import ServingConfig
from workers.engine.serving.processor import NAME

ENGINE = """
import json, sys
from vllm import LLM, SamplingParams
from vllm.model_executor.layers import utils
processors = json.loads(sys.argv[2])
prompts = [{"prompt_token_ids": [1 + (7 * row + 3 * at) % 90 for at in range(5 + 6 * row)]} for row in range(5)]
asked = [
    SamplingParams(temperature=row % 2, seed=row, max_tokens=8, logprobs=-1, ignore_eos=True, detokenize=False)
    for row in range(5)
]
found, kept = [], []  # the end of one engine would end what the next one needs
for dtype in ("bfloat16", "float32"):
    llm = LLM(
        model=sys.argv[1], dtype=dtype, skip_tokenizer_init=True, enforce_eager=True, max_model_len=128,
        max_num_seqs=8, kv_cache_memory_bytes=16 << 20, max_logprobs=-1, seed=0, logits_processors=processors,
    )
    kept.append(llm)
    alone = llm.generate(prompts[:1], asked[:1], use_tqdm=False)
    found += [
        [list(answer.outputs[0].token_ids), [[step[token].logprob for token in sorted(step)] for step in
        answer.outputs[0].logprobs]]
        for answer in [*alone, *llm.generate(prompts, asked, use_tqdm=False)]
    ]
print("\\n" + json.dumps([utils.dispatch_cpu_unquantized_gemm.__module__, found]))
"""


def answered(checkpoint: Path, config_file: Path | None) -> tuple[str, list[object]]:
    """Where the choice of products comes from, and token ids with the log-probabilities of every token, in bfloat16 and
    in float32."""
    environment = server_environment(config_file, device="cpu") | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    if config_file is None:
        environment["VLLM_PLUGINS"] = ""
    processors = json.dumps([] if config_file is None else [NAME])
    command = [sys.executable, "-c", ENGINE, str(checkpoint), processors]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    module, found = json.loads(done.stdout.strip().splitlines()[-1])
    return module, found


def test_rows_without_a_version_are_plain_vllms_bit_for_bit_on_any_processor(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """One row alone and five in a batch, greedy and drawn."""
    checkpoint = tiny("llama")
    config = ServingConfig(
        deployment="tiny",
        architecture="LlamaForCausalLM",
        fingerprint="f" * 16,
        float32_products=False,
        profiles=tmp_path / "profiles",
        versions_file=tmp_path / "versions.json",
        hidden=tmp_path / "hidden",
        door_file=tmp_path / "door",
    )
    (tmp_path / "profiles").mkdir()
    (tmp_path / "serving.json").write_text(config.model_dump_json())
    plain_module, plain = answered(checkpoint, None)
    module, ours = answered(checkpoint, tmp_path / "serving.json")
    assert plain_module == module == "vllm.model_executor.layers.utils"
    assert len(plain) == 12
    assert plain[:6] != plain[6:]
    assert ours == plain
