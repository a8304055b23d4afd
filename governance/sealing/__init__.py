"""The sealed held-out test set: seal, vault, ledger of openings, proof."""
