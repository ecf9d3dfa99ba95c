"""Job handlers: what a diagnosis job of each kind does, and the verdict."""
