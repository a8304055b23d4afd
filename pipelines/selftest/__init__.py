"""Gates that prove they work: faults planted one at a time, tried on the guards that a run uses."""
