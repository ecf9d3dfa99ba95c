"""Low-rank repair: beside every linear layer, a product of two thin matrices that takes back what was lost."""
