"""The model being governed: data sets, generators, training, sampling and metrics."""
