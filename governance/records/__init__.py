"""The language that governance and medisynth share: documents, statuses, errors, digests."""
