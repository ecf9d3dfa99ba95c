"""Tiny random-weight checkpoints and a tokenizer for them: the real architectures, made on the spot in a second."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
)

VOCABULARY = 320
TEXT = (
    "The quick brown fox jumps over the lazy dog. A model that is changed for deployment may lose what it knew; "
    "how much it lost is measured in nats a token. Zero one two three four five six seven eight nine ten. "
    'def add(a, b): return a + b  # {"name": "add", "arguments": {"a": 1, "b": 2}}'
)

# head_dim 32 is the smallest that vLLM's CPU attention takes.
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama-untied": {"model_type": "llama", "tie_word_embeddings": False},
    "llama-padded": {"model_type": "llama", "vocab_size": 333, "tie_word_embeddings": False},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "gemma2": {
        "model_type": "gemma2",
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
        "query_pre_attn_scalar": 32,
        "sliding_window": 128,
        "tie_word_embeddings": True,
    },
    "granite": {"model_type": "granite", "logits_scaling": 4.0, "tie_word_embeddings": True},
    "mixtral": {
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "tie_word_embeddings": False,
    },
}


def make_tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `VOCABULARY` tokens; with `bos`, one that puts a BOS before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    if bos:
        from tokenizers.processors import TemplateProcessing

        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = (
        "{% for message in messages %}<s>{{ message['role'] }}\n"
        "{% generation %}{{ message['content'] }}{% endgeneration %}"
        "</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    return fast


def make_checkpoint(
    folder: Path, kind: str = "llama", *, seed: int = 0, bos: bool = False, scale: float = 4.0, **overrides: Any
) -> Path:
    """Writes a random-weight bf16 checkpoint of `CONFIGS[kind]` and returns its folder.

    `scale` multiplies the weights of every matrix, so that the distributions are far from uniform. `overrides` go into
    the configuration.
    """
    config = AutoConfig.for_model(**(_COMMON | CONFIGS[kind] | overrides))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    model.to(torch.bfloat16).save_pretrained(folder)
    make_tokenizer(bos=bos).save_pretrained(folder)
    return folder
