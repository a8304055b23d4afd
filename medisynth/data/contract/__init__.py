"""The data contract of an image table, and the two engines that check it."""
