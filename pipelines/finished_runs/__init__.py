"""What can be done with runs that came to their end."""
