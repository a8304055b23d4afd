"""Reports: model card and audit report, written from the evidence manifest alone."""
