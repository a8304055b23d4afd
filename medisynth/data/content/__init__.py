"""Search for identifying content: burned-in text and marks, identifiers in file and metadata."""
