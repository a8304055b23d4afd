"""The policy: GMLP principles with their items, and the hazards they look at."""
