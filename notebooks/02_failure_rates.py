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
# # 2. Failure rates, seeds and intervals
#
# How much does churn cost, and at which rate does another strategy take the lead? One run answers that for one rate
# and one sequence of failures. This notebook sweeps the rate, repeats each point with three pairs of a failure seed
# and a training seed, and shows which conclusions are justified. It takes about four minutes on two cores.

# %%
import os
from pathlib import Path

import churnlab
import pandas as pd

# %matplotlib inline
SHORT = bool(os.environ.get("CHURNLAB_SHORT"))  # the project's tests set it
SCENARIOS = Path(churnlab.__file__).parents[3] / "scenarios"
RESULTS = Path("results")  # beside this notebook

# %% [markdown]
# ## Sweep
#
# `scenarios/failure_rates.yaml` is the quickstart with a section that makes it a sweep:
#
# ```yaml
# sweep:
#   grid:
#     failures.rate_per_hour: [0.05, 0.10, 0.16]
#   replicates: 3
# ```
#
# `run_sweep` is the function behind the command `churnlab sweep`. It executes unfinished runs on all cores and shares
# training steps between runs: checkpointing and redundant computation need only the failure-free training of each
# replicate. Here trainings are 500 steps long, to save time. (`CHURNLAB_SHORT` replaces training by a parametric loss
# curve, whose results have no meaning.)

# %%
changes = ["training.steps=500", "training.target_validation_loss=2.2"]
pretend = ["training.steps=150", "training.learner=curve", "training.target_validation_loss=3.0"]
scenario = churnlab.load_scenario(SCENARIOS / "failure_rates.yaml", pretend if SHORT else changes)
found = churnlab.run_sweep(scenario, RESULTS, cache=churnlab.default_cache()).results()

FIELDS = ["failures.rate_per_hour"]
churnlab.summary_table("failure_rates", churnlab.summary(found.runs, FIELDS, reference="none"), FIELDS, "none")

# %% [markdown]
# **What to see.** Each row is a strategy at a rate. *Hours to end* show the cost of churn in time; *hours to loss*
# show the total cost. `(2/3)` would mean that two of three runs reached the target, and that the mean is over these
# two. The percentages are differences from no failures *under the same seeds*, with their 95 % intervals. With three
# replicates the intervals are wide.

# %% [markdown]
# ## Time to the target loss, by rate

# %%
hours = churnlab.time_to_loss(found)
hours.drop(columns=["kind", "num_failure_seeds", "num_training_seeds"]).round(2)

# %%
churnlab.figure("time_to_loss", found)

# %% [markdown]
# **What to see.** The means have an order at each rate, but the bars (95 % intervals; a caret where one continues
# beyond the axis) overlap nearly everywhere. Overlapping bars prove neither a difference nor equality: the runs of
# one replicate met *the same churn* and started with the same weights, so strategies vary together. Look at
# differences instead.

# %% [markdown]
# ## The same churn: paired differences
#
# CheckFree and CheckFree+ at 5 % per hour: first as if their runs were independent, then pair by pair under the same
# seeds.

# %%
runs = found.runs[found.runs["failures.rate_per_hour"] == 0.05].assign(
    value=found.runs["target_reached_seconds"] / 3600
)
one, other = (runs[runs["strategy"] == name] for name in ("checkfree", "checkfree_plus"))
apart = [churnlab.estimate(rows) for rows in (one, other)]
pairs = churnlab.paired_difference(one, other).difference

pd.DataFrame(
    {
        "mean, h": [apart[0].mean, apart[1].mean, pairs.mean],
        "± half of the 95 % interval": [apart[0].half_width, apart[1].half_width, pairs.half_width],
    },
    index=["CheckFree, hours to the target", "CheckFree+, hours to the target", "difference under equal seeds"],
).round(2)

# %% [markdown]
# **What to see.** The means are known to two and three hours, their difference to less than two. A replicate with few
# failures and a good start helps both strategies, one with many failures harms both, and the common part cancels.
# Treated as independent, the difference would be known to ± 3.7 h. Halving an interval takes four times as many
# replicates, so pairing is valuable, and it only requires equal seeds. The interval still contains 0: three
# replicates do not distinguish the two strategies.

# %% [markdown]
# ## How many replicates would it take?
#
# For an interval of 5 % of the mean: how many *additional* replicates are needed, estimated from these (at most as
# many again).

# %%
everywhere = found.runs.assign(value=found.runs["target_reached_seconds"])
rows = []
for (strategy, rate), group in everywhere.groupby(["strategy", "failures.rate_per_hour"], sort=False):
    known = churnlab.estimate(group)
    rows.append(
        {
            "strategy": strategy,
            "rate": rate,
            "half width, % of the mean": 100 * known.half_width / known.mean,
            "replicates": known.num_reached,
            "more for 5 %": churnlab.replicates_needed(known, 0.05),
        }
    )
pd.DataFrame(rows).round(2)

# %% [markdown]
# **What to see.** The half width shrinks with the square root of the number of replicates and with its factor,
# Student's t, which is 4.3 at three replicates and 2.3 at ten. The first additional replicates therefore narrow it
# most. `churnlab sweep ... --until-ci 5%` adds replicates automatically, equally for all strategies of a point, until
# each mean is known to 5 %; `--dry-run` shows the expected widths.

# %% [markdown]
# ## All that the end of the sweep told, as a table
#
# `summary` returns the content of `statistics.csv`, here with CheckFree+ as the reference.

# %%
against = churnlab.summary(found.runs, FIELDS, ["target_reached_seconds"], reference="checkfree_plus")
shown = ["strategy", "failures.rate_per_hour", "num_paired", "relative_difference", "relative_low", "relative_high"]
against.loc[against["strategy"] != "checkfree_plus", shown].round(3)

# %% [markdown]
# **What to see.** Where an interval contains 0, these runs do not distinguish the two strategies. Of fifteen
# comparisons at 95 % confidence, expect nearly one false difference: do not select the one that you like.
#
# ## And now
#
# - `sweep: {replicates: 10}`, or `--until-ci 5%`, and look again at what overlaps.
# - `training_replicates: 1`: three failure seeds under one training. The intervals are narrower, but hold for that
#   training only.
# - Another axis: `strategies[checkpoint].interval_iterations: [10, 25, 100]`, or `network.bandwidth_factor: [0.1, 1,
#   10]`.
