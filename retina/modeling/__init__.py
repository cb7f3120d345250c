"""The detector: backbone, pyramid, head; what goes before it and what comes after it."""
