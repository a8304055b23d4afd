"""Records shared by governance and medisynth: documents, statuses, errors, digests."""
