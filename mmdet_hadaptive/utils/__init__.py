"""Helpers for the libraries around this package, and for configs, files and errors.

This file imports nothing, so that the check of the installation can run before other imports.
"""
