"""Other projects' weights, converted to this project's names."""
