"""Tool calls that both models write freely: how many parse, how many fit the tool's schema."""
