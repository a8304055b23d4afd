"""Images that occur twice: exact copies and near-duplicates."""
