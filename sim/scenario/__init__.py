"""Scenarios: the configuration of a simulation, read from YAML, checked and explained.

Belongs here: sections, cross-field checks, error messages with file and line, sweep points.
Does not belong here: running anything.
"""
