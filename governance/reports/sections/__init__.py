"""The sections of the report, each a function from evidence to blocks."""
