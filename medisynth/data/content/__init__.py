"""What an image gives away: burned-in text and marks, identifiers in file and metadata."""
