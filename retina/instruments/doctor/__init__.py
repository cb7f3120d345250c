"""``retina doctor``: is this set-up right, before hours are spent on it?

`checks` has the table of all checks. One file for each family of them; each check is a function
from a `CheckContext` to a `CheckResult`. ``anchors/`` is also ``retina data anchors``.
"""
