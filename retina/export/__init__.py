"""Detectors in other formats, each held against its source before it is written."""
