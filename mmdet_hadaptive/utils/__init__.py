"""What stands between this package and its surroundings: libraries, configs, files, errors.

Nothing is imported here, so that the check can run before what it checks.
"""
