"""Memory does not grow with the number of positions."""

import os
import subprocess
import sys

MEASURE = """
import resource
import numpy as np
from tests.support.distributions import hidden_states, make_head
from workers.distributions.divergence import Divergence

head = make_head(16_384, 256, spread=3.0)
divergence = Divergence(head, head, device="cpu")
parts = []
for part in range(10):
    h = hidden_states(2_000, 256, seed=part)
    parts.append(divergence(h, h * 1.01, np.arange(2_000)))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_peak_memory_is_flat_from_two_to_twenty_thousand_tokens() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=800,
    )
    peaks = [int(line) for line in run.stdout.split()]
    assert len(peaks) == 10
    # Kilobytes; the results take 80 bytes a token. One matrix of logits takes 64 kB a token, 1.3 GB for all.
    assert peaks[-1] - peaks[0] < 16_000
