"""Tasks by the definitions of EleutherAI's lm-evaluation-harness, which runs them; our engine answers."""
