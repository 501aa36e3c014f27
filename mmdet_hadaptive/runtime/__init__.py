"""The installation: its check, safe loading, MMDetection's tools, files that are written whole.

Nothing is imported here, so that the check can run before what it checks.
"""
