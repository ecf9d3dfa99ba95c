"""The three ways to stop the bleeding: what is pruned, how it is quantized, and what is given back."""
