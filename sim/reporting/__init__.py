"""Reporting: figures, tables for people, and the HTML report.

Belongs here: one module a figure, and what figures share (style, series, axis limits).
Does not belong here: statistics (`sim.results`) and running simulations.
"""
