"""Studies of published work, as plug-ins."""
