"""Work: what an iteration of the target model costs in seconds and bytes, for a schedule and a deployment.

Belongs here: costs, memory, schedules, the pipeline of one iteration. Does not belong here: failures, recovery, and
anything that depends on a loss.
"""
