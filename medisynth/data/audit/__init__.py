"""What a data set holds and lacks: coverage, confounding, quality, shift, labels, demographics."""
