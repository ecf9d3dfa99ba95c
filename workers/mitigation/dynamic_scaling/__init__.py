"""Dynamic quantization scaling: a quantized model that keeps the reference's activations and distributions.

What is done, in this order: channels are smoothed (`smoothing`), bits given to modules (`budget`), weights rounded one
block after the other against the reference's outputs (`moments`, `grids`, `rounding`), scales, rounding, norms and
biases tuned on the divergence of the whole model (`tuning`), and the result stored (`result`). `step` leads through it.
"""
