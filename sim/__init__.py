"""Simulator of decentralized training with churn: its time, its failures, the recovery from them, and its results.

`core` has units, records, random streams and presets. `cluster`, `workload`, `failures` and `strategies` are the parts
of a simulated training, `scenario` reads and checks their options, `simulation` runs them on one clock. `experiments`
runs sweeps and maps, `results` reads and summarises runs, `reporting` shows them; `cli` and `library` are the
commands and the Python package.
"""
