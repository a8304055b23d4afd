"""Data sets: adapters, images, the data contract, duplicates, splits and packed views."""
