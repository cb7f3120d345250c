"""What goes on beside the training, one file each; see `retina.training.run.Hook`."""
