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
# Which recovery strategy should you use when your nodes keep leaving? This notebook does in Python what `churnlab run
# scenarios/quickstart.yaml` does on the command line: it loads a scenario, runs five strategies under the same
# failures, and reads the results. It takes about two minutes on two cores, and seconds when repeated.

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
# A scenario has two models. The **workload** is the model that you would like to train: it gives the *seconds*. The
# **training** section is a small proxy that is really trained: it gives the *losses*. No number mixes the two.
#
# Every field can be changed when the file is loaded, by the same names as with `--set` on the command line. (The
# project's tests set `CHURNLAB_SHORT`, which shortens the training to a second.)

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
# Fields that the file leaves out have defaults. The complete scenario is written beside the results. All fields are
# listed in `docs/scenario.md`; in Python they look like this:

# %%
scenario.cluster.model_dump(exclude={"device"})

# %% [markdown]
# ## Run it
#
# `run_sweep` runs every strategy under each pair of seeds, on all cores. Finished runs are not repeated, and training
# steps are cached: you can stop this cell at any time and start it again.

# %%
done = churnlab.run_sweep(scenario, RESULTS, cache=churnlab.default_cache())
runs, results = done.run_files(), done.results()

churnlab.comparison_table(runs, scenario)

# %% [markdown]
# **What to see.** *Hours to end* are for 800 iterations of the 500M model. Checkpointing adds time by rollbacks (see
# the *re-run* iterations) and redundant computation by longer iterations (*seconds per iteration*). CheckFree and
# CheckFree+ add almost no time. *Final loss* is the loss of the proxy after all iterations. It is equal for the first
# three strategies, to the last digit, since they restore a lost stage exactly. The column that combines both is
# **hours to loss 2**.

# %% [markdown]
# ## Look at it
#
# Figures are drawn from the files of finished runs; `churnlab plot results/quickstart` draws the same ones and more.
# They are matplotlib figures that you can modify.

# %%
churnlab.figure("loss", results)

# %% [markdown]
# **What to see.** The same losses against simulated time (left) and against iterations (right). On the right,
# checkpointing and redundant computation coincide with the curve of no failures: they reach the same losses, only
# later. The left panel shows how much later: at every rollback, the curve of checkpointing jumps back to an older,
# higher loss. CheckFree and CheckFree+ leave the other curves at the first cross, a stage failure, and stay above
# them: they lose no time, but learn less per iteration. Which cost is larger depends on *your* failure rate.

# %%
churnlab.figure("ledger", results)

# %% [markdown]
# **What to see.** Every simulated second is in exactly one bucket, and the buckets add up to the hours of the table.
# The bucket that makes a bar longer than the first bar is the cost of that strategy.

# %% [markdown]
# ## The same as tables
#
# A run's folder has tables of all iterations and all events. These are the first events of CheckFree+, in simulated
# hours:

# %%
plus = next(run for run in runs if run.summary["strategy"] == "checkfree_plus")
plus.events.assign(hours=plus.events["time_seconds"] / 3600)[["hours", "kind", "stage", "iteration", "detail"]].head(6)

# %% [markdown]
# The outcomes of all runs are one DataFrame:

# %%
outcomes = results.runs
hours = outcomes[["wall_clock_seconds", "target_reached_seconds"]] / 3600
others = outcomes[["num_failures", "final_validation_loss", "cost_usd"]]
pd.concat([outcomes["strategy"], hours.round(2), others.round(3)], axis=1)

# %% [markdown]
# ## Before you believe it
#
# This is **one seed**, and therefore one sequence of failures. Load the scenario again with
# `("seeds.failures=[1]",)`, and the order may change. General statements need replicates and confidence intervals:
# see [the next notebook](02_failure_rates.ipynb).
#
# Try `("failures.rate_per_hour=0.05",)`, half as many stages, or `("cluster.device=h100",)`. Only CheckFree and
# CheckFree+ are trained again; the other strategies stay on the failure-free line, which is already cached.
