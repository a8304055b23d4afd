"""The order of work: configuration, the eight steps, tracking and the command line."""
