"""Calibration inside a vLLM server: what runs in its processes, and how `workers.serve` starts them."""
