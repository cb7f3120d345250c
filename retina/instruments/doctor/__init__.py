"""``retina doctor``: is this set-up right, before hours are spent on it?

One file for each family of checks; each check is a function from a `Subject` to what it found.
"""
