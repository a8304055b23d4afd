"""Downloads: public data sets and weights, checked by digest, and their cache."""
