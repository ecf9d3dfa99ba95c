"""The `sweep` job: one knob of a recipe over a grid, and how far it may be turned."""
