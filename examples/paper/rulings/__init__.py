"""The rules as code, by the names that claims give them. Each takes the reports of its claim's jobs."""

from collections.abc import Callable, Mapping
from typing import Final

from examples.paper.finding import Finding
from examples.paper.rulings.compression import (
    cliff,
    four_bits,
    four_bits_against_pruning,
    half_size_order,
    pruning_order,
    steeper,
)
from examples.paper.rulings.curves import knee, one_text_hides
from examples.paper.rulings.decoding import decoding_distributions, decoding_tokens
from examples.paper.rulings.inside import attention, cascade
from examples.paper.rulings.mitigations import decoding_calibration, dynamic_scaling, gradient_pruning
from examples.paper.rulings.reports import Reports
from examples.paper.rulings.together import additive_inside, compounds_outside

RULINGS: Final[Mapping[str, Callable[[Reports], Finding]]] = {
    rule.__name__: rule
    for rule in (
        half_size_order,
        knee,
        pruning_order,
        cliff,
        steeper,
        four_bits,
        four_bits_against_pruning,
        additive_inside,
        compounds_outside,
        one_text_hides,
        attention,
        cascade,
        decoding_tokens,
        decoding_distributions,
        gradient_pruning,
        dynamic_scaling,
        decoding_calibration,
    )
}
