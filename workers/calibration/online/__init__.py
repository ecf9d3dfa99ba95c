"""The on-line loop's decisions: drift, promotion, rollback, and what they are made from."""
