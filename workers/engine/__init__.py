"""The only room that knows vLLM: scoring, sampling and vLLM's own log-probabilities, in this process.

Importing a module of this room never imports vLLM; starting an engine does.
"""
