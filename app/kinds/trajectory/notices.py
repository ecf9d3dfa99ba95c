"""What limits a trajectory."""

from app.contracts.notice import Notices


class TrajectoryNotice(Notices):
    """Of a trajectory's report."""

    LONG_TEXTS = "Texts longer than {tokens} tokens, and other decoders or parameters than those listed."
    TEXT_BY_PEOPLE = "Text written by people: the two models wrote the scored text."
    PLAIN_TEXT = "Plain text: every prompt is in the chat template."
    CONVERSATIONS = "Conversations: every prompt is plain text, without a chat template."
    FEWER_PROMPTS = "The text has {documents:#document}: {prompts:#prompt} instead of {asked}."
    REPEATED_PROMPTS = (
        "{repeated} of {prompts} prompts {repeated:repeats|repeat} an earlier one. Intervals assume independent "
        "prompts, and are too narrow with copies: leave the copies out, or take longer prompts."
    )
    FEW_PROMPTS = "Only {prompts:#prompt}: intervals hold for {prompts:this prompt|these prompts} only."
    NONFINITE_POSITIONS = (
        "Some positions of generated texts had non-finite logits and are left out of every mean: {positions} in all "
        "cells together. If cells share a text, each counts its positions."
    )
    OTHER_KERNELS = (
        "{model} runs on other kernels than the reference ({scheme}). They add a part of its KL; `hemostat compare` "
        "reports that part."
    )
    SHORT_TEXTS = "Texts of the reference are shorter than eight tokens on average: they show little."
