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
# How much does churn cost, and from which rate on is another strategy ahead? One run answers that for one rate and
# one story of failures. This notebook sweeps the rate, repeats each point with three pairs of a failure and a training
# seed, and asks what may be concluded from that. It takes about four minutes on two cores.

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
# `run_sweep` is what the command `churnlab sweep` does: what is not finished yet, on all cores, and it trains no step
# twice: runs share what they have in common, and checkpointing and redundant computation need the failure-free training
# of each replicate alone.
# Here trainings are 500 steps long, to be done sooner. (`CHURNLAB_SHORT` pretends, with a parametric loss curve: not
# to be looked at.)

# %%
changes = ["training.steps=500", "training.target_validation_loss=2.2"]
pretend = ["training.steps=150", "training.learner=curve", "training.target_validation_loss=3.0"]
scenario = churnlab.load_scenario(SCENARIOS / "failure_rates.yaml", pretend if SHORT else changes)
found = churnlab.run_sweep(scenario, RESULTS, cache=churnlab.default_cache()).results()

FIELDS = ["failures.rate_per_hour"]
churnlab.summary_table("failure_rates", churnlab.summary(found.runs, FIELDS, reference="none"), FIELDS, "none")

# %% [markdown]
# **What to see.** Each row is a strategy at a rate. *Hours to end* say what churn costs in time; *hours to loss* what
# it costs in all. `(2/3)` would mean that two of three runs reached the target at all: their mean speaks of those two
# alone. The percentages are differences from no failures *under the same seeds*, with their 95 % intervals. The
# intervals are wide: that is what three replicates tell.

# %% [markdown]
# ## Time to the target loss, by rate

# %%
hours = churnlab.time_to_loss(found)
hours.drop(columns=["kind", "num_failure_seeds", "num_training_seeds"]).round(2)

# %%
churnlab.figure("time_to_loss", found)

# %% [markdown]
# **What to see.** The means have an order at each rate, and the bars (95 % intervals; a caret where one goes on
# beyond the axis) overlap nearly everywhere. From overlapping bars nothing follows, neither a difference nor
# equality: the runs of one replicate met *the same churn* and began with the same weights, so that strategies go up and
# down together. Look at differences instead.

# %% [markdown]
# ## The same churn: paired differences
#
# CheckFree and CheckFree+ at 5 % per hour: once as if their runs had nothing to do with each other, once pair by pair
# under the same seeds.

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
# **What to see.** The means are known to two and three hours, and their difference to less than two: a replicate with
# few failures and a good start is kind to both, one with many is hard on both, and what they have in common drops out.
# As if the runs had nothing to do with each other, it would be ± 3.7 h. It takes four times as many replicates to halve
# an interval, so this is worth many, and costs nothing but to give all the same seeds. Still the interval holds 0:
# three replicates do not tell the two apart.

# %% [markdown]
# ## How many replicates would it take?
#
# For an interval of 5 % of the mean: how many replicates *more*, as far as these tell (at most as many again).

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
# **What to see.** The half width shrinks with the square root of the number of replicates, and its factor, Student's t,
# is 4.3 at three, 2.3 at ten. So the first few more narrow it most. `churnlab sweep ... --until-ci 5%` adds them by
# itself, for all strategies of a point alike, until each is known so well; `--dry-run` says what to expect.

# %% [markdown]
# ## All that the end of the sweep told, as a table
#
# `summary` is what `statistics.csv` has in it; here with CheckFree+ as the reference.

# %%
against = churnlab.summary(found.runs, FIELDS, ["target_reached_seconds"], reference="checkfree_plus")
shown = ["strategy", "failures.rate_per_hour", "num_paired", "relative_difference", "relative_low", "relative_high"]
against.loc[against["strategy"] != "checkfree_plus", shown].round(3)

# %% [markdown]
# **What to see.** Where an interval has 0 in it, these runs do not tell the two apart. Fifteen comparisons at 95 %
# confidence will, on average, show nearly one difference that is none: do not go hunting for the one that pleases.
#
# ## And now
#
# - `sweep: {replicates: 10}`, or `--until-ci 5%`, and look again at what overlaps.
# - `training_replicates: 1`: three failure seeds under one training. Narrower, but true of that training alone.
# - Another axis: `strategies[checkpoint].interval_iterations: [10, 25, 100]`, or `network.bandwidth_factor: [0.1, 1,
#   10]`.
