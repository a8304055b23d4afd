"""The policy: GMLP principles with their items, and the hazards that the items cover."""
