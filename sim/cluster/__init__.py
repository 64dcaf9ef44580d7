"""Machines: devices, the slots of a cluster and its nodes, links, and the messages that share links.

Does not belong here: the work that machines do (`sim.workload`) and when they fail (`sim.failures`).
"""
