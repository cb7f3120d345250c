"""Pure tensor math on boxes, anchors and sizes; no parameters, no knowledge of a network."""
