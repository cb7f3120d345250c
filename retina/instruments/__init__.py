"""What some users run about a training; the spine imports none of it. See CONTRIBUTING.md."""
