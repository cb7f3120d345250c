"""A step that was not finite, run again layer by layer."""
