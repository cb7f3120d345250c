"""The command line: parses arguments and prints; the work is done elsewhere."""
