"""What the detector is trained for: which anchor answers for which object, and at what loss."""
