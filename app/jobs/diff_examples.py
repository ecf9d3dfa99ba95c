"""The example of a difference on the OpenAPI page: two candidates of one model, measured alike."""

from typing import Any, Final

from app.contracts.diff_report import SCHEMA, UNITS
from app.jobs.examples import JOB_ID

OTHER_ID: Final = "diag_01M89DBQ4T6S8X1N0C2V5R7H9K"
_METHOD: Final = (
    "differences paired by token; 95 % studentized bootstrap intervals and two-sided p-values clustered by document; "
    "Holm’s correction over all pairs of a measure"
)


def _mean(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": mean, "ci": [low, high], "clusters": "documents"}


_RANKED: Final = {"severity": "severe", "bytes": 269060552, "nonfinite_positions": 0}
_A: Final = _RANKED | {
    "letter": "a",
    "job": JOB_ID,
    "candidate": "smollm2-135m · 4-bit RTN, group 64, asymmetric",
    "bits_per_weight": 4.5,
    "value": _mean(0.326, 0.3013, 0.3541),
    "perplexity": 26.2,
    "best_rank": 2,
    "worst_rank": 2,
}
_B: Final = _RANKED | {
    "letter": "b",
    "job": OTHER_ID,
    "candidate": "smollm2-135m · 5-bit RTN, group 64, asymmetric",
    "bits_per_weight": 5.5,
    "value": _mean(0.0949, 0.0881, 0.1024),
    "perplexity": 21.3,
    "best_rank": 1,
    "worst_rank": 1,
}
_DIFFERENCES: Final = {
    "kl": _mean(-0.2311, -0.2498, -0.2127),
    "log_perplexity": _mean(-0.2047, -0.2301, -0.1805),
    "top1_agreement": _mean(0.1342, 0.1251, 0.1433),
}

DIFF: Final[dict[str, Any]] = {
    "schema": SCHEMA,
    "comparable": True,
    "label": "",
    "mismatches": [],
    "by": "kl",
    "tokens": 10220,
    "documents": 60,
    "ranking": [_B, _A],
    "ties": [],
    "pairs": [
        {
            "earlier": "a",
            "later": "b",
            "differences": [
                {
                    "measure": measure,
                    "unit": UNITS[measure],
                    "domain": None,
                    "tokens": 10220,
                    "documents": 60,
                    "difference": _DIFFERENCES[measure],
                    "p": 0.0005,
                    "p_adjusted": 0.0005,
                    "verdict": "better",
                }
                for measure in _DIFFERENCES
            ],
            "domains": [],
        }
    ],
    "verdict": "b is better than a in KL.",
    "method": _METHOD,
    "warnings": [],
}
