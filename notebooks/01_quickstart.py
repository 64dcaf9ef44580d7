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
# # 1. Quickstart
#
# Which recovery strategy should you train with when your nodes keep leaving? This notebook does in Python what
# `churnlab run scenarios/quickstart.yaml` does as a command: it loads a scenario, runs five strategies under the same
# failures, and reads the results. It takes about two minutes on two cores; a second time, seconds.

# %%
import os
from pathlib import Path

import churnlab
import pandas as pd

# %matplotlib inline
SCENARIOS = Path(churnlab.__file__).parents[3] / "scenarios"
RESULTS = Path("results")  # beside this notebook

# %% [markdown]
# ## A scenario
#
# Two models stand in it side by side. The **workload** is the model you would like to train: it gives the *seconds*.
# The **training** section is a small proxy that really learns: it gives the *losses*. No number mixes the two.
#
# Whatever the file says can be changed when it is loaded, by the same names as with `--set` on the command line. (The
# project's tests set `CHURNLAB_SHORT`: a minute's work in a second, with pictures that say little.)

# %%
short = (
    "training.steps=24",
    "training.target_validation_loss=4",
    "training.data={source: text, files: [../docs/*.md]}",
)
scenario = churnlab.load_scenario(SCENARIOS / "quickstart.yaml", short if os.environ.get("CHURNLAB_SHORT") else ())

print(
    "target: ",
    scenario.workload.model.name,
    "in",
    scenario.workload.num_stages,
    "stages on",
    scenario.cluster.device.name,
)
print("proxy:  ", scenario.training.model)
print("failures:", scenario.failures.kind, scenario.failures.rate_per_hour, "per stage and hour")
print("compared:", [strategy.name for strategy in scenario.strategies])

# %% [markdown]
# Everything that the file leaves out has a default, and the whole of it is written beside the results. All fields:
# `docs/scenario.md`, or as Python sees them:

# %%
scenario.cluster.model_dump(exclude={"device"})

# %% [markdown]
# ## Run it
#
# `run_sweep` does all runs of a scenario on all cores: each strategy, under each pair of seeds. What is finished is
# not run again, and a training step that was ever made is never made again: stop this cell when you like and start it
# once more.

# %%
done = churnlab.run_sweep(scenario, RESULTS, cache=churnlab.default_cache())
runs, results = done.run_files(), done.results()

churnlab.comparison_table(runs, scenario)

# %% [markdown]
# **What to see.** *Hours to end* are for 800 iterations of the 500M model. Strategies add to the first row's in their
# own coin: rollbacks (checkpointing; look at the iterations *re-run*), longer iterations (redundant computation;
# *seconds per iteration*), or hardly anything (CheckFree, CheckFree+). *Final loss* is what the proxy has learnt after
# all iterations: equal for the first three to the last digit, since they restore a lost stage exactly. The column to
# decide by has both in it: **hours to loss 2**.

# %% [markdown]
# ## Look at it
#
# Figures are made from the files of finished runs; `churnlab plot results/quickstart` makes the same and more. They
# are matplotlib figures: change them as you like.

# %%
churnlab.figure("loss", results)

# %% [markdown]
# **What to see.** The same losses twice: left against simulated time, right against iterations. On the right
# checkpointing and redundant computation lie on the curve of no failures: they learn nothing less, only later. On the
# left you see how much later: at every rollback checkpointing's curve breaks and takes up again at the older, higher
# loss. CheckFree's and CheckFree+'s leave the others with the first cross, a stage failure, and stay above: they lose
# no time, and learn less. Which of the two is worse at *your* failure rate is the question.

# %%
churnlab.figure("ledger", results)

# %% [markdown]
# **What to see.** Every simulated second is in exactly one bucket, and the buckets add up to the hours of the table.
# Look for the colour that makes a strategy's bar longer than the first: that is what it pays with.

# %% [markdown]
# ## The same as tables
#
# A run's folder has tables of every iteration and of everything that happened. Here are the first things that
# happened to CheckFree+, in simulated hours:

# %%
plus = next(run for run in runs if run.summary["strategy"] == "checkfree_plus")
plus.events.assign(hours=plus.events["time_seconds"] / 3600)[["hours", "kind", "stage", "iteration", "detail"]].head(6)

# %% [markdown]
# And all runs' outcomes as one DataFrame:

# %%
outcomes = results.runs
hours = outcomes[["wall_clock_seconds", "target_reached_seconds"]] / 3600
others = outcomes[["num_failures", "final_validation_loss", "cost_usd"]]
pd.concat([outcomes["strategy"], hours.round(2), others.round(3)], axis=1)

# %% [markdown]
# ## Before you believe it
#
# This is **one seed**: one story of who failed when. Load the scenario again with `("seeds.failures=[1]",)` and the
# order may change. What holds for all seeds takes replicates, and intervals that say how far to trust their mean:
# that is [the next notebook](02_failure_rates.ipynb).
#
# To try here: `("failures.rate_per_hour=0.05",)`, half as many stages, `("cluster.device=h100",)`. Only CheckFree and
# CheckFree+ are trained anew; the others never leave the failure-free line, which is known by now.
