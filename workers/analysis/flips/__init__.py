"""From KL to flips: what the service's own past runs say a divergence does to answers. Needs numpy and scipy only."""
