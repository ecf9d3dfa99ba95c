"""The `surface` job: two knobs turned together, and whether their damages add up."""
