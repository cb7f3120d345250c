"""Studies that build and run whole experiments: the loss lab, tuning."""
