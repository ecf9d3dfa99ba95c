"""The GPU side: everything that needs torch or vLLM."""
