"""Verified decoding: the candidate drafts, the reference verifies; what comes out follows the reference exactly."""
