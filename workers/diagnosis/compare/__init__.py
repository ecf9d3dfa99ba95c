"""Compare jobs: the modified model against the unmodified one."""
