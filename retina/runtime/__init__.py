"""Images in, detections out: the one place that runs a network without gradients."""
