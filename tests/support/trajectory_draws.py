"""Drawn cells of a trajectory report. No model is behind them: what a page shows side by side fits, other numbers are
drawn one by one."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

Json = dict[str, Any]
TITLES: Final = {
    "numbers": "Numbers",
    "code": "Program code",
    "answer_start": "First tokens of an answer",
    "names": "Names",
    "punctuation": "Punctuation",
    "non_english": "Other languages",
    "rare": "Rare tokens",
    "none": "In no class",
}
BLOCK: Final[Json] = {
    "classes": [
        {"name": name, "title": title, "definition": f"Tokens that are of the class {title.lower()}."}
        for name, title in TITLES.items()
        if name != "none"
    ],
    "absent": ["JSON structure", "Tool names", "Tool arguments", "Chat template"],
}
_NOTHING: Final = {"mean": None, "ci": None, "clusters": None}


class Draws:
    """One decoder of one candidate; `damage` is the mean KL of single steps, in nats."""

    def __init__(self, damage: float, prompts: int, most: int, seed: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.damage, self.prompts, self.most = damage, prompts, most

    def mean(self, level: float, most: float = np.inf) -> Json:
        """About `level`; exactly 0 for 0. Shares have `most` 1."""
        value = min(most, level * self.rng.uniform(0.85, 1.15))
        half = abs(value) * self.rng.uniform(0.1, 0.4)
        low = value - half if level < 0 else max(0.0, value - half)
        return {"mean": value, "ci": [low, min(most, value + half)], "clusters": "documents"}

    def if_damaged(self, level: float, most: float = np.inf) -> Json:
        """About `level`; 0 without damage."""
        return self.mean(level if self.damage else 0.0, most)

    def ratio(self, value: float) -> Json:
        """A factor with an interval of a quarter to each side; none without damage."""
        if not self.damage:
            return {"value": None, "ci": None}
        return {"value": value, "ci": [0.75 * value, 1.25 * value]}

    def text(self) -> Json:
        """Statistics of texts."""
        return {
            "length": self.mean(0.9 * self.most),
            "ended": self.mean(0.4, 1),
            "repetition": {str(n): self.mean(0.4 / n, 1) for n in (1, 2, 3, 4)},
            "distinct": self.mean(0.6, 1),
            "entropy": self.mean(2.0),
            "surprise": self.mean(1.2),
            "reference_surprise": self.mean(1.4),
        }

    def cell(self, decoder: str, candidate: int) -> Json:
        """The whole cell."""
        kl = self.if_damaged(self.damage)
        factor = self.rng.uniform(0.9, 1.1) * (1 + max(0.0, self.damage - 0.3))
        own = kl | {"mean": kl["mean"] * factor, "ci": [bound * factor for bound in kl["ci"]]}
        grown = self.ratio(factor)
        low, high = grown["ci"] or (1, 1)
        none = "no_damage" if not self.damage else "open"
        conclusion = "amplifies" if low > 1 else "damps" if high < 1 else none
        levels = {"length": -2.0, "ended": 0.05, "distinct": -0.02, "entropy": -0.1, "surprise": -0.1}
        changed = {key: self.if_damaged(level) for key, level in (levels | {"reference_surprise": 0.2}).items()}
        return {
            "decoder": decoder,
            "candidate": candidate,
            "prompts": self.prompts,
            **self.parting(),
            "edit_distance": [
                {"tokens": length, "distance": self.if_damaged(0.5 + 0.002 * length, 1)}
                for length in (16, 32, 64, 128)
                if length <= self.most
            ],
            "kl_reference_text": kl,
            "kl_candidate_text": own,
            "amplification": {
                "kl": grown,
                "kl_reference_text": kl,
                "kl_candidate_text": own,
                "tokens": self.ratio(7.0),
                "one_step": self.if_damaged(0.11, 1),
                "free": self.if_damaged(0.8, 1),
                "conclusion": conclusion,
            },
            "along": [
                {
                    "first": first,
                    "last": last,
                    "kl_reference_text": self.if_damaged(self.damage),
                    "kl_candidate_text": self.if_damaged(self.damage),
                    "entropy_reference": self.mean(2.0),
                    "entropy_candidate": self.mean(1.9),
                    "disagreement": self.if_damaged(0.6, 1),
                }
                for first, last in ((1, 8), (9, 16), (17, 32), (33, 64), (65, 128))
                if last <= self.most
            ],
            "text": self.text(),
            "change": changed | {"repetition": {str(n): self.if_damaged(0.03 / n) for n in (1, 2, 3, 4)}},
            "nonfinite_positions": 0,
        }

    def parting(self) -> Json:
        """Survival by a geometric law, in whole prompts."""
        left = (1 - min(0.5, 0.3 * self.damage)) ** np.arange(self.most + 1)
        shares = np.round(left * self.prompts) / self.prompts
        curve = [
            {"tokens": tokens, "share": share, "ci": [max(0.0, share - 0.15), min(1.0, share + 0.15)]}
            for tokens, share in enumerate(shares.tolist())
        ]
        median, soon, late = (
            next((place for place, share in enumerate(shares) if share <= half), None) for half in (0.5, 0.65, 0.35)
        )
        found = {
            "diverged": {"mean": 1 - curve[-1]["share"], "ci": [0.8, 1.0] if self.damage else [0.0, 0.1]},
            "median": median,
            "median_ci": [soon, late],
            "shared_prefix": self.mean(float(shares[1:].sum())),
        }
        return {"first_divergence": found, "survival": curve}

    def by_class(self) -> Json:
        """Every class on both texts and among the first different tokens."""
        shares = self.rng.dirichlet(np.full(len(TITLES), 4.0)).tolist()
        named = list(zip(TITLES, shares, strict=True))
        parted = self.prompts if self.damage else 0
        return {
            "reference_text": [self._kl(name, share) for name, share in named],
            "candidate_text": [self._kl(name, share) for name, share in named],
            "first_divergence": {
                "parted": parted,
                "after_the_end": 0,
                "tokens": 300,
                "classes": [self._first(name, share, parted) for name, share in named],
            },
        }

    def _kl(self, name: str, share: float) -> Json:
        none = name == "none"
        return {
            "name": name,
            "tokens": int(3500 * share),
            "prompts": self.prompts,
            "share": share,
            "kl": self.if_damaged(self.damage),
            "share_of_kl": share if self.damage else None,
            "share_of_kl_ci": [0.8 * share, min(1.0, 1.2 * share)] if self.damage else None,
            "difference": None if none else {"mean": 0.02, "ci": [-0.06, 0.1], "clusters": "documents"},
            "p_value": None if none else self.rng.uniform(0.3, 1.0),
            "nonfinite_positions": 0,
        }

    def _first(self, name: str, share: float, parted: int) -> Json:
        judged = bool(parted) and name != "none"
        return {
            "name": name,
            "tokens": int(300 * share),
            "divergences": round(parted * share),
            "share": self.mean(share, 1) if parted else _NOTHING,
            "share_by_place": share if judged else None,
            "p_value": self.rng.uniform(0.3, 1.0) if judged and name != "answer_start" else None,
        }

    def distance(self, shaping: Json, candidate: int) -> Json:
        """After a decoder's cut; temperature cuts nothing off."""
        name, cuts = shaping["name"], shaping["name"] != "temperature"
        lost = self.if_damaged(0.2 * cuts, 1)
        measured = {
            "kl": self.if_damaged(0.2),
            "infinite": lost,
            "tv": self.if_damaged(0.2, 1),
            "top1": self.mean(0.9, 1),
        }
        return measured | {
            "candidate": candidate,
            "shaping": name,
            "parameters": {key: value for key, value in shaping.items() if key != "name"},
        }
