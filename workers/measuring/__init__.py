"""What all kinds of job share of measuring: text, checkpoint, reference, noise floor, candidate, values per token."""
