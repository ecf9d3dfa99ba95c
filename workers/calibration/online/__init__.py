"""The on-line loop's decisions: drift, promotion, rollback, staleness, and what they are made from."""
