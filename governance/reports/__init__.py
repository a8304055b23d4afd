"""Model card and audit report, written from the files on the evidence manifest alone."""
