"""A distance that no file of app or workers names: the squared Hellinger distance, ½Σ(√p − √q)² = ½Σ g·(1 − √E)².

Imported first, it is measured and shown as every other one: run it, and it prints what it reached, as JSON.
"""

from app.contracts.distances import DISTANCES, Distance
from workers.distributions.terms import TERMS

DISTANCES.append(Distance("hellinger", "H²", "squared Hellinger distance", "probability", 1.0))
TERMS["hellinger"] = lambda of: 0.5 * of.g * (1 - of.E.sqrt()) ** 2
