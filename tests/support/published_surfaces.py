"""The published tables of two knobs turned together, LLaMA2-7B on WikiText2: perplexity by pruned or removed share
(rows) and precision (columns), as printed in the tables of the phase-transition paper."""

from __future__ import annotations

import numpy as np

WANDA_SHARES = (0, 10, 20, 30, 40, 50, 55, 60, 65, 70)
WANDA_FORMATS = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
WANDA_GGUF = np.array(
    [
        [6.157, 6.156, 6.168, 6.179, 6.243, 6.340, 6.685],
        [6.195, 6.195, 6.207, 6.210, 6.273, 6.380, 7.166],
        [6.309, 6.309, 6.321, 6.330, 6.370, 6.511, 7.311],
        [6.444, 6.445, 6.456, 6.468, 6.500, 6.626, 7.551],
        [6.708, 6.710, 6.721, 6.737, 6.778, 6.896, 8.054],
        [7.250, 7.261, 7.268, 7.295, 7.333, 7.496, 9.301],
        [7.967, 7.969, 7.981, 8.038, 8.072, 8.313, 10.86],
        [9.897, 9.896, 9.968, 10.10, 10.11, 10.53, 15.18],
        [18.23, 18.25, 18.70, 18.92, 19.01, 20.34, 31.16],
        [47.72, 47.88, 48.65, 48.60, 48.39, 53.97, 86.61],
    ]
)

ASVD_SHARES = (0, 10, 15, 17, 20, 23, 25, 27)
ASVD_FORMATS = ("FP16", "INT8", "INT6")
ASVD_RTN = np.array(
    [
        [5.450, 5.452, 5.501],
        [5.924, 5.910, 5.987],
        [6.886, 6.901, 7.026],
        [7.699, 7.710, 7.942],
        [9.735, 9.804, 10.28],
        [17.2, 17.5, 18.9],
        [42.8, 43.2, 47.3],
        [259.0, 256.0, 232.0],
    ]
)

# It begins at a tenth: what GPTQ alone loses was printed elsewhere, by another evaluation.
SPARSEGPT_SHARES = (10, 30, 50, 55, 60, 65, 70, 80)
SPARSEGPT_FORMATS = ("FP16", "INT8", "INT4", "INT3")
SPARSEGPT_GPTQ = np.array(
    [
        [5.143, 5.145, 5.432, 11.13],
        [5.341, 5.344, 5.548, 10.55],
        [6.081, 6.090, 6.517, 9.098],
        [6.676, 6.680, 7.040, 14.39],
        [7.885, 7.847, 8.431, 13.22],
        [10.55, 10.60, 12.22, 22.08],
        [15.93, 15.79, 19.40, 33.29],
        [49.2, 50.9, 59.0, 109.4],
    ]
)

# Sparsity that the iso-loss line of perplexity 7.5 crosses in the published figure, in per cent, by format.
ISO_LOSS = 7.5
PUBLISHED_LIMITS = {"F16": 52.1, "Q4_K_M": 51.5, "Q3_K_M": 50.0, "Q2_K": 28.6}

# Size in per cent of FP16 where the table or the figure prints it: (share, format) → size.
PRINTED_SIZES = {
    (0, "F16"): 100.0,
    (0, "Q8_0"): 49.4,
    (0, "Q6_K"): 38.1,
    (10, "Q5_K_M"): 29.7,
    (10, "Q4_K_M"): 25.4,
    (0, "Q3_K_M"): 22.7,
    (10, "Q3_K_M"): 20.5,
    (20, "Q3_K_M"): 18.2,
    (0, "Q2_K"): 17.5,
    (30, "Q3_K_M"): 15.9,
    (40, "Q3_K_M"): 13.6,
    (50, "Q3_K_M"): 11.4,
    (55, "Q3_K_M"): 10.2,
    (60, "Q3_K_M"): 9.1,
    (50, "Q2_K"): 8.7,
}
