# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. A real spot trace
#
# Failure rates are a model. Real spot machines are lost in bursts, return in bursts, and are sometimes unavailable.
# This notebook replays eleven hours of an AWS p3 fleet, published by Bamboo (NSDI '23): nodes arrive and leave at the
# times of the trace. **Time only**: nothing is trained, so everything takes seconds.

# %%
import os
from itertools import pairwise
from pathlib import Path

import churnlab
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

# %matplotlib inline
SHORT = bool(os.environ.get("CHURNLAB_SHORT"))  # the project's tests set it
SCENARIOS = Path(churnlab.__file__).parents[3] / "scenarios"
RESULTS = Path("results")  # beside this notebook
time_only = (
    "training.learner=none",
    "training.target_validation_loss=null",
    *(["training.steps=60"] if SHORT else []),
)
seatings = "seeds.failures=" + ("[0, 1]" if SHORT else "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]")

scenario = churnlab.load_scenario(SCENARIOS / "spot_trace.yaml", (*time_only, seatings, "name=spot_trace_time"))

# %% [markdown]
# ## Look at the trace first
#
# Look at the input before the output. A loaded scenario contains the whole trace: one row for each time at which
# nodes arrive or leave.

# %%
trace = pd.DataFrame(scenario.failures.rows, columns=["seconds", "come", "leave", "who_leaves"])
trace["hours"] = trace["seconds"] / 3600
trace["nodes"] = (trace["come"] - trace["leave"]).cumsum()

hours = np.diff(trace["hours"])
node_hours = (trace["nodes"].to_numpy()[:-1] * hours).sum()
print(f"{trace['come'].sum()} come and {trace['leave'].sum()} leave in {trace['hours'].max():.2f} h")
print(
    f"on average {node_hours / hours.sum():.1f} nodes, {trace['leave'].sum() / node_hours:.3f} losses per node and hour"
)
print("leaving at one instant:", trace.loc[trace["leave"] > 0, "leave"].value_counts().sort_index().to_dict())

# %%
with plt.rc_context(churnlab.STYLE):
    figure, axis = plt.subplots(figsize=(7.2, 2.6), layout="constrained")
    axis.step(trace["hours"], trace["nodes"], where="post", color="#0072B2", label="active nodes")
    together = trace[trace["leave"] > 1]
    axis.scatter(
        together["hours"],
        together["nodes"],
        s=12 * together["leave"],
        color="#D55E00",
        alpha=0.7,
        zorder=3,
        linewidths=0,
        label="several leave at once (the larger, the more)",
    )
    axis.axhline(7, color="0.3", linestyle=":", label="nodes that the job needs")
    axis.set(xlabel="hours of the trace", ylabel="nodes", ylim=(0, None))
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

# %% [markdown]
# **What to see.** There are always more nodes than the seven in use, so a spare is always available: a lost stage
# waits for its state, not for a machine. But at half of the times several nodes leave at once. If two of them hold
# neighbouring stages, a strategy that rebuilds a stage from its neighbours cannot recover. A failure rate does not
# show this.

# %% [markdown]
# ## Run it
#
# The failure seed draws which node holds which stage at the start: ten seeds are ten assignments under the same
# trace.

# %%
found = churnlab.run_sweep(scenario, RESULTS).results()

columns = ["num_failures", "num_fallbacks", "num_iterations_rerun", "mean_recovery_seconds", "cost_usd"]
outcomes = found.runs.assign(hours=found.runs["wall_clock_seconds"] / 3600).groupby("strategy")[["hours", *columns]]
means, deviations = outcomes.mean().round(1).astype(str), outcomes.std().round(1).astype(str)
(means + " ± " + deviations).loc[[strategy.name for strategy in scenario.strategies]]

# %% [markdown]
# **What to see.** A stage is lost four times per hour. Checkpointing repeats a hundred iterations of 800. CheckFree+
# repeats some dozens, all of them in the few cases in which it could not recover and the fallback went back to a
# checkpoint; this is also why its hours vary most. The hybrids never roll back: a stage that neighbours cannot
# rebuild is restored, stale, from the checkpoint. This table shows seconds only; `docs/churn.md` shows the effect of
# a stale or averaged stage on the *loss*, from real training.

# %% [markdown]
# ## How often are neighbours lost together?

# %%
failures = found.events[found.events["kind"] == "failure"].merge(
    found.runs[["run", "strategy", "failure_seed"]], on="run"
)
plus = failures[failures["strategy"] == "checkfree_plus"]
at_once = plus.groupby(["failure_seed", "time_seconds"])["stage"].agg(lambda stages: sorted(int(s) for s in stages))
adjacent = at_once.map(lambda stages: any(b - a == 1 for a, b in pairwise(stages)))
pd.DataFrame(
    {
        "instants at which stages are lost": at_once.groupby("failure_seed").size(),
        "of several stages": (at_once.map(len) > 1).groupby("failure_seed").sum(),
        "of neighbours": adjacent.groupby("failure_seed").sum(),
        "fallbacks": found.runs[found.runs["strategy"] == "checkfree_plus"].set_index("failure_seed")["num_fallbacks"],
    }
)

# %% [markdown]
# **What to see.** Under one trace, neighbours are lost together between zero and four times, depending on the
# assignment of nodes; a single replay would hide this variation. (There can be more fallbacks: a stage can also be
# lost while its neighbour is still being recovered.)

# %% [markdown]
# ## Where do the hours go?

# %%
churnlab.figure("ledger", found)

# %%
churnlab.ledger_table(found)

# %% [markdown]
# **What to see.** The strategies have different kinds of costs. Checkpointing has a cost *per failure*: lost work,
# waiting for saves, downloads of everything. CheckFree+ has a cost *per iteration*: bubbles are two and a half times
# those of the first bar, since microbatches on swapped routes wait for each other on these slow links; its recoveries
# are cheap.

# %% [markdown]
# ## What if the market were calmer?
#
# `time_scale` stretches the trace. The hours that each strategy needs, beyond those without failures:

# %%
rows = []
for scale in (1, 4) if SHORT else (1, 2, 4, 8):
    changed = (*time_only, seatings, f"failures.time_scale={scale}", f"name=spot_trace_x{scale}")
    calmer = churnlab.load_scenario(SCENARIOS / "spot_trace.yaml", changed)
    rows.append(churnlab.run_sweep(calmer, RESULTS).results().runs.assign(**{"time scale": scale}))
overhead = pd.concat(rows).pivot_table(index="time scale", columns="strategy", values="overhead", aggfunc="mean")
(100 * overhead.drop(columns="none")).round(1).add_suffix(", %")

# %% [markdown]
# **What to see.** Strategies with a cost per failure gain from fewer failures: at half as many losses, checkpointing
# is already ahead in time. Strategies with a cost per iteration do not gain. The order therefore changes at some
# rate, which for *your* cluster depends on links, model and store; a sweep finds it.
#
# ## And now
#
# - `cluster.nodes_per_stage=3`: with more of the nodes in use, most losses leave a replica that has the state.
# - `failures={kind: trace, file: traces/bamboo_p3.csv, additions: ignore}`: nodes are lost as in the trace, and a
#   replacement is ordered for each (`cluster.provisioning_seconds`).
# - Your own trace: one line `milliseconds,add,node` or `milliseconds,remove,node` per node that arrives or leaves.
