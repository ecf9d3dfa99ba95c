"""Dynamic quantization scaling: a quantized model that keeps the reference's activations and distributions.

What is done, in this order: bits are given to modules (`sensitivity`, `plan`, `budget`), then in each block channels
smoothed (`smoothing`), weights rounded (`moments`, `grids`, `columns`, `rounding`) and what is free of it fitted
(`learned`, `fitting`). The result is stored (`result`). `step` leads through it.
"""
