"""From item statuses to principles, gate, exit code and the sentence of the verdict."""
