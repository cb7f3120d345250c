"""Whether the anchors reach the objects, measured by the real assigner, and which would fit."""
