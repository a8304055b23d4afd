"""`data check`: steps 1 to 4 without sealing, and memory of earlier results."""
