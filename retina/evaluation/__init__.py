"""Scoring: the COCO numbers, results files, tables and reports."""
