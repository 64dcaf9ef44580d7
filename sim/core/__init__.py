"""Foundations of the simulator: units, random streams, records, the time ledger, text, files, plug-ins, presets.

Belongs here: what every other package may need and what knows nothing of clusters, models or training.
Does not belong here: anything that imports another package of `sim`.
"""
