"""The three ways to limit the damage: what is pruned, how it is quantized, and what is given back."""
