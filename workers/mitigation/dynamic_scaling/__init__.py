"""Dynamic quantization scaling: a quantized model that keeps the reference's activations and distributions.

First modules get their bits (`sensitivity`, `plan`, `budget`). Then in each block channels are smoothed (`smoothing`),
weights rounded (`moments`, `grids`, `rounding`), and what is free is fitted (`learned`, `fitting`). The result is
stored (`result`). `step` leads through it.
"""
