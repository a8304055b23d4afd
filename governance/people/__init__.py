"""People's word: intended use, declarations, waivers, and when a signature counts."""
