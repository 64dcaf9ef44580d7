"""Reporting: figures, tables for people, and the HTML report.

Does not belong here: statistics (`sim.results`) and running simulations.
"""
