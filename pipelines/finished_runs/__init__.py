"""Commands on runs that ended: verify, compare, sample, promote, resume, sync and others."""
