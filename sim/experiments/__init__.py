"""Experiments: runs, sweeps, replicates and the strategy map, on one process, many, or a Ray cluster.

Belongs here: what to run, in which order, on which workers, and how an interrupted experiment resumes.
Does not belong here: drawing, and options of a command line.
"""
