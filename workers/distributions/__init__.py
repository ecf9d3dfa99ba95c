"""From hidden states to distributions and what they say: head, divergence, token values, statistics, intervals."""
