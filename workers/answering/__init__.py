"""Both models answer tasks: by likelihood, by generated text, by programs that are run."""
