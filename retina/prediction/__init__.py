"""Using a trained detector: the predictor and the pictures of what it finds."""
