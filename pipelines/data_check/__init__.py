"""Steps 1 to 4 without seal and training."""
