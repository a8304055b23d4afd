"""Evidence: records, documents, the event log, the manifest and its verification."""
