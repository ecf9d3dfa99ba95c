"""`hemostat diff`: several compare reports against each other, paired by token. Needs numpy, scipy and pyarrow only."""
