"""The `trajectory` job: what a modification does to text that the model writes itself."""
