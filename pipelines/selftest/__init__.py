"""Self-test: plants faults one at a time and checks that the guards of a run catch them."""
