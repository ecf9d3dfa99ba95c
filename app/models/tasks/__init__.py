"""Task files: read, checked and rendered as prompts. Needs neither torch nor a tokenizer."""
