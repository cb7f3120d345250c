"""What the losses and labels of a detector tell: loss anatomy, label noise."""
