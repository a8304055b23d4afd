"""What is loaded from elsewhere: data sets and weights, pinned by digest."""
