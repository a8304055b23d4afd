"""The training loop, one update, its guards, the states it goes on from."""
