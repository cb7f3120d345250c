"""A detector behind HTTP: the service of ``retina serve``, and its page."""
