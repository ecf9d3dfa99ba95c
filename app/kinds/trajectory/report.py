"""The report of a trajectory job, kind `trajectory` of schema `hemostat.report/1`.

The common blocks describe `candidate` on the reference's own texts by the first decoder. They compare next-token
distributions after the same tokens, as a compare job does. `candidates` have the same blocks for each candidate. Each
of `cells` is one decoder and one candidate. Positions of a generated text count from its first token, 1; the token that
ended a text counts. Intervals are 95 %, clustered by prompt. KL is KL(p‖q) in nats per token, p the reference's
distribution, q the candidate's, no matter which model wrote the text.
"""

from typing import Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.report import (
    Blocks,
    Ci,
    Count,
    Mean,
    ModelProvenance,
    Number,
    Report,
    Severity,
)


class DecoderRun(Contract):
    """A decoder as it was run."""

    name: str
    parameters: dict[str, float | int | str | bool | None]
    engine: Literal["vllm", "loop"] = Field(
        description=(
            "where the model ran. `vllm`: in vLLM, which returns the logits of each step. `loop`: in a loop over "
            "transformers' layers"
        )
    )
    random: Literal["none", "common"] = Field(
        description=(
            "whether chance decides. `common`: at each step of a prompt, all models use the same uniform number. "
            "Each takes the token at which its cumulative probability, by token id, passes that number"
        )
    )


class CandidateRun(Contract):
    """A candidate, and its damage on the reference's own texts by the first decoder."""

    model: ModelProvenance
    severity: Severity
    excess_kl: Mean = Field(description="KL beyond the noise floor, nats per token")
    blocks: Blocks = Field(description="the common blocks of this candidate")


class TextStatistics(Contract):
    """Statistics of one model's texts by one decoder, or their change. Each is a mean over prompts."""

    length: Mean = Field(description="tokens")
    ended: Mean = Field(description="share of texts that the model ended itself")
    repetition: dict[str, Mean] = Field(
        description=(
            "by n: share of n-grams of tokens that occur earlier in the same text; texts shorter than n are left out"
        )
    )
    distinct: Mean = Field(description="distinct tokens as a share of all")
    entropy: Mean = Field(description="of the model's own next-token distribution along its own text, nats per token")
    surprise: Mean = Field(description="−ln probability of the model's tokens under the model itself, nats per token")
    reference_surprise: Mean = Field(description="the same under the reference, nats per token")


class SurvivalPoint(Contract):
    """Share of prompts whose two texts are still the same after `tokens` tokens, with its 95 % interval."""

    tokens: Count
    share: float
    ci: Ci


class FirstDivergence(Contract):
    """The position of the first token that differs between the two texts."""

    diverged: Mean = Field(description="share of prompts whose texts differ within the tokens generated")
    median: int | None = Field(description="null if fewer than half of the texts differ")
    median_ci: tuple[int | None, int | None] = Field(
        description="by inverting the survival curve's interval; null: beyond the tokens generated"
    )
    shared_prefix: Mean = Field(
        description=("tokens before the first difference; all tokens if the texts are the same")
    )


class EditDistance(Contract):
    """Levenshtein distance of the first `tokens` tokens of both texts, over the longer one's length."""

    tokens: Count
    distance: Mean


class Band(Contract):
    """Positions `first` to `last` of the generated texts. Null: no text is that long."""

    first: Count
    last: Count
    kl_reference_text: Mean
    kl_candidate_text: Mean
    entropy_reference: Mean = Field(description="the reference's along its own text, nats")
    entropy_candidate: Mean = Field(description="the candidate's along its own text, nats")
    disagreement: Mean = Field(description="share of positions at which the two texts hold different tokens")


class Ratio(Contract):
    """A ratio of two sums over the same prompts, with the interval of both together."""

    value: Number
    ci: Ci | None


class Amplification(Contract):
    """How much more the model differs in free generation than one step at a time."""

    kl: Ratio = Field(description="KL on the candidate's own text over KL on the reference's text, same positions")
    kl_reference_text: Mean = Field(
        description="mean KL on the reference's text at those positions, nats per token: the ratio's denominator"
    )
    kl_candidate_text: Mean = Field(description="the same on the candidate's own text, the ratio's numerator")
    tokens: Ratio = Field(
        description=(
            "tokens that differ between the two texts, over single steps with another first choice on the "
            "reference's text, same positions"
        )
    )
    one_step: Mean = Field(
        description=("share of steps with another first choice on the reference's text, the ratio's denominator")
    )
    free: Mean = Field(description="share of positions at which the texts differ, the ratio's numerator")
    conclusion: Literal["amplifies", "damps", "open", "no_damage"] = Field(
        description=(
            "`amplifies`, `damps`: the whole interval of the KL ratio is above 1, below 1. `no_damage`: KL is "
            "exactly 0 on both texts. `open`: neither, or KL is exactly 0 on the reference's text only"
        )
    )


class TokenClassName(Contract):
    """A kind of token. `none` in the slices means: in no class."""

    name: str
    title: str
    definition: str


class ClassKl(Contract):
    """The tokens of one class along one model's texts. A token may be in several classes."""

    name: str
    tokens: Count = Field(description="tokens at which both models' logits are finite")
    prompts: Count = Field(description="prompts with such a token")
    share: float = Field(description="share of all finite tokens of these texts")
    kl: Mean
    share_of_kl: Number = Field(description="share of the summed KL; null if no token has any KL")
    share_of_kl_ci: Ci | None = Field(description="null if at most one prompt has any KL")
    difference: Mean | None = Field(
        description="mean KL of the class minus that of all other tokens, nats; null if either has no token"
    )
    p_value: Number = Field(description="of no difference, two-sided, adjusted over the classes of this list (Holm)")
    nonfinite_positions: Count


class ClassDivergence(Contract):
    """One class among the reference's tokens that could be the first to differ."""

    name: str
    tokens: Count = Field(description="tokens at risk: up to and including the first different token")
    divergences: Count = Field(description="first different tokens of the class")
    share: Mean = Field(
        description="share of the class in all first different tokens, with its exact binomial interval"
    )
    share_by_place: Number = Field(
        description=(
            "the mean of that share if the positions of first differences are assigned to these texts at random. "
            "Null for `none`, and if no texts differ"
        )
    )
    p_value: Number = Field(
        description=(
            "of `share` against `share_by_place`. Hypothesis: the first difference is independent of the class's "
            "positions. Two-sided, by permutation, adjusted over the classes of this list (Holm). Null if no "
            "permutation changes the share"
        )
    )


class ClassFirstDivergence(Contract):
    """The classes of the first different tokens, as the reference wrote them."""

    parted: Count = Field(description="prompts whose texts first differ at a token of the reference's text")
    after_the_end: Count = Field(
        description=("prompts whose texts first differ after the end of the reference's text; not counted")
    )
    tokens: Count = Field(description="the reference's tokens at risk, of all prompts together")
    classes: tuple[ClassDivergence, ...]


class ClassesOfCell(Contract):
    """The first decoder of one candidate by the class of the generated token, `none` (in no class) last."""

    reference_text: tuple[ClassKl, ...] = Field(description="KL along the reference's texts")
    candidate_text: tuple[ClassKl, ...] = Field(description="KL along the candidate's own texts")
    first_divergence: ClassFirstDivergence


class TrajectoryTokenClasses(Contract):
    """The texts of the first decoder by kind of token."""

    classes: tuple[TokenClassName, ...] = Field(description="classes that some generated token is in")
    absent: tuple[str, ...] = Field(description="titles of the classes that no generated token is in")
    by_candidate: tuple[ClassesOfCell, ...] = Field(description="in the order of `candidates`")


class Cell(Contract):
    """One decoder of one candidate."""

    decoder: str
    candidate: Count = Field(description="index into `candidates`")
    prompts: Count
    first_divergence: FirstDivergence
    survival: tuple[SurvivalPoint, ...]
    edit_distance: tuple[EditDistance, ...] = Field(description="by length, the whole text last")
    kl_reference_text: Mean
    kl_candidate_text: Mean
    amplification: Amplification
    along: tuple[Band, ...]
    text: TextStatistics
    change: TextStatistics = Field(
        description=(
            "candidate minus reference, paired by prompt; no interval if every prompt changes by the same amount"
        )
    )
    nonfinite_positions: Count


class ReferenceTexts(Contract):
    """The reference's own texts by one decoder."""

    decoder: str
    text: TextStatistics


class ShapedDistance(Contract):
    """The distance of the two models after a decoder's cut of both distributions, on the reference's texts."""

    candidate: Count
    shaping: str
    parameters: dict[str, float | int | str | bool | None]
    kl: Mean = Field(description="nats, over the positions at which it is finite: q keeps every token that p keeps")
    infinite: Mean = Field(
        description=(
            "share of positions at which q cuts off a token that p keeps. Temperature cuts nothing off, so it has no "
            "interval"
        )
    )
    tv: Mean
    top1: Mean = Field(description="share of positions at which both models have the same most likely token")


class Sample(Contract):
    """One prompt and what each model wrote after it. The report has samples only if the job may store text."""

    document: str
    domain: str
    decoder: str
    candidate: Count
    prompt: str
    shared: str = Field(description="what both models wrote before the first difference")
    reference: str = Field(description="the reference's text from the first difference on")
    candidate_text: str
    first_divergence: int | None


class TrajectoryReport(Blocks, Report):
    """What a trajectory job found."""

    kind: Literal["trajectory"] = "trajectory"
    severity: Severity = Field(description="of `candidate`, on the reference's own texts by the first decoder")
    prompts: Count
    prompt_tokens: Count = Field(description="of the longest prompt")
    most_tokens: Count = Field(description="most tokens that a text could have")
    chat_template: bool
    decoders: tuple[DecoderRun, ...]
    candidates: tuple[CandidateRun, ...] = Field(description="as requested, `candidate` first")
    cells: tuple[Cell, ...] = Field(description="decoder by decoder, candidates in their order")
    reference_texts: tuple[ReferenceTexts, ...]
    distances: tuple[ShapedDistance, ...]
    token_classes: TrajectoryTokenClasses
    samples: tuple[Sample, ...] = ()
    generated_tokens: Count
