"""A model's divergence from itself, compiled, as on other processors: in a process that may use fewer instructions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys, torch
from tests.support.distributions import hidden_states, make_head
from workers.distributions.divergence import Divergence

found = {}
for name, form in json.loads(sys.argv[1]).items():
    head, h = make_head(1000, 64, spread=6.0, **form), hidden_states(300, 64)
    values = Divergence(head, head, device="cpu")(h, h.clone(), torch.arange(300))
    found[name] = [float(getattr(values, one).max()) for one in ("kl", "reverse_kl", "js", "tv")]
print(json.dumps(found))
"""
FORMS = {"plain": {}, "all": {"bias": True, "softcap": 8.0, "scale": 0.7}, "cap": {"softcap": 30.0}}
PROCESSORS = {
    "this one": {},
    "BF16 without AMX": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "AVX-512 without BF16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_no_compiled_form_diverges_from_itself(processor: str, tmp_path: Path) -> None:
    # On this one, test_compiled.py has the plain form of the demo model: each form takes a minute to compile.
    forms = {name: form for name, form in FORMS.items() if (name, processor) != ("plain", "this one")}
    # Inductor's cache takes what it generated for one set of vector instructions for another.
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)} if processor != "this one" else {}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(forms)],
        env=os.environ | PROCESSORS[processor] | cache,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == dict.fromkeys(forms, [0.0] * 4)
