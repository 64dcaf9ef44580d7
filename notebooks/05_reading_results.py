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
# # 5. Reading results
#
# Results are files: a folder per run with parquet tables and, for a sweep, `runs.parquet` with a row per run. This
# notebook reads them with pandas and DuckDB, checks them against known facts, and draws a new figure. It needs the
# sweep of [notebook 2](02_failure_rates.ipynb); the first cell runs whatever is missing (at most three minutes).

# %%
import math
import os
from pathlib import Path

import churnlab
import duckdb
import matplotlib.pyplot as plt
import numpy as np

# %matplotlib inline
SHORT = bool(os.environ.get("CHURNLAB_SHORT"))  # the project's tests set it
SCENARIOS = Path(churnlab.__file__).parents[3] / "scenarios"
RESULTS = Path("results")  # beside this notebook

changes = ["training.steps=500", "training.target_validation_loss=2.2"]
pretend = ["training.steps=150", "training.learner=curve", "training.target_validation_loss=3.0"]
scenario = churnlab.load_scenario(SCENARIOS / "failure_rates.yaml", pretend if SHORT else changes)
done = churnlab.run_sweep(scenario, RESULTS, cache=churnlab.default_cache())

# %% [markdown]
# ## What is there
#
# `load_results` gives all runs, and each kind of record of all runs, as DataFrames with a column `run`. The columns
# are described in `results/README.md`.

# %%
found = churnlab.load_results(RESULTS / "failure_rates")
print(len(found.runs), "runs of", found.runs["strategy"].nunique(), "strategies")
print(len(found.iterations), "iterations,", len(found.events), "events")
found.runs[["run", "failures.rate_per_hour", "failure_seed", "wall_clock_seconds", "final_validation_loss"]].head()

# %% [markdown]
# ## First: is it what it should be?
#
# Before drawing conclusions, check what is known. **Every second is in one bucket**, so the buckets of a run must add
# up:

# %%
buckets = found.ledger.groupby("run")["seconds"].sum()
(buckets / found.runs.set_index("run")["wall_clock_seconds"] - 1).abs().max()

# %% [markdown]
# **The failure rate is as requested.** Six stages, each lost within an hour with probability h, have -6 ln(1 - h)
# losses per hour. Runs of one seed meet the same churn, so each seed counts once, by its longest run:

# %%
failures = found.events[found.events["kind"] == "failure"].groupby("run").size().rename("lost")
longest = found.runs.join(failures, on="run").sort_values("wall_clock_seconds")
longest = longest.groupby(["failures.rate_per_hour", "failure_seed"]).last()
seen = longest.groupby("failures.rate_per_hour").agg(lost=("lost", "sum"), seconds=("wall_clock_seconds", "sum"))
seen["per hour"] = seen["lost"] / (seen["seconds"] / 3600)
seen["expected"] = [-6 * math.log1p(-rate) for rate in seen.index]
seen["standard error"] = np.sqrt(seen["lost"]) / (seen["seconds"] / 3600)
seen[["lost", "per hour", "expected", "standard error"]].round(3)

# %% [markdown]
# **What to see.** Observed and expected numbers agree within one or two standard errors (the square root of a Poisson
# count). These three checks are hardly more than one: under equal seeds, a higher rate brings *the same* failures,
# only earlier.

# %% [markdown]
# ## Where the hours go, by rate

# %%
ledger = churnlab.ledger_hours(found).set_index(["strategy", "failures.rate_per_hour"])
ledger = ledger[[name for name in ledger.columns if name.endswith("_hours")]].rename(columns=lambda name: name[:-6])
ledger.loc[:, (ledger > 0.005).any()].round(2)

# %% [markdown]
# **What to see.** In a strategy's rows, lost work and state transfer grow with the rate. Bubbles and redundant
# compute do not grow; they occur with or without failures.

# %% [markdown]
# ## SQL, without loading anything
#
# DuckDB (`pip install duckdb`) reads parquet files directly, thousands of runs as easily as one. This query gives the
# loss at some iterations, by rate and strategy:

# %%
folder = (RESULTS / "failure_rates").as_posix()
at_steps = duckdb.sql(f"""
    SELECT r."failures.rate_per_hour" AS rate, r.strategy, i.step, round(avg(i.validation_loss), 3) AS loss
    FROM read_parquet('{folder}/*/iterations.parquet', filename = true) AS i
    JOIN '{folder}/runs.parquet' AS r ON r.run = parse_path(i.filename)[-2]
    WHERE i.validation_loss IS NOT NULL AND i.step % 100 = 0
    GROUP BY ALL ORDER BY ALL
""").df()
at_steps.pivot(index=["rate", "strategy"], columns="step", values="loss")

# %% [markdown]
# **What to see.** A row is a training; a column shows the effect of failures on the loss alone. Checkpointing,
# redundant computation and no failures have equal rows at all rates, since they are exact. The rows of CheckFree
# differ, and the difference grows with the rate.

# %% [markdown]
# ## Pair by pair
#
# Compare strategies under equal seeds. Hours to the end, checkpointing minus redundant computation:

# %%
wide = found.runs.pivot(
    index=["failures.rate_per_hour", "failure_seed"], columns="strategy", values="wall_clock_seconds"
)
pairs = ((wide["checkpoint"] - wide["redundant"]) / 3600).unstack("failure_seed")
pairs.assign(mean=pairs.mean(axis=1), deviation=pairs.std(axis=1)).round(2)

# %% [markdown]
# **What to see.** A negative value means that checkpointing ends earlier. At 5 % all seeds agree; at 16 % the sign
# depends on the seed. The order changes somewhere in between, and a single seed could have shown either result.

# %% [markdown]
# ## A figure of your own
#
# `draw` draws one panel on your own axes, so that you can combine panels: here loss curves at the highest rate, and
# the time to the target at all rates, both without CheckFree+. (The tables behind the panels are in `sim.results`:
# `loss_curves`, `outcome_tables`, `recovery_tables`.)

# %%
chosen = churnlab.Results(found.folder, found.runs[found.runs["strategy"] != "checkfree_plus"])
point = {"failures.rate_per_hour": 0.16}

with plt.rc_context(churnlab.STYLE):
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
    churnlab.draw(left, chosen, "loss", at=point)
    left.set(xlabel="simulated hours, at 16 % per hour", ylabel="validation loss, nats/token", ylim=(1.95, 2.9))
    churnlab.draw(right, chosen, "time_to_loss")
    right.set(xlabel="failure rate (% per hour)", ylabel="hours to the target loss")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)

# %% [markdown]
# **What to see.** On the left, bands extend from the lowest to the highest of three seeds (thin lines); they are not
# confidence intervals. On the right, the lines across the marks are 95 % intervals of the mean over all possible
# seeds. The two look alike but differ in meaning, so a caption must name them.
#
# ## And now
#
# - `found.events`, `found.nodes`: when nodes arrived and left, and how stages were recovered.
# - `churnlab.figure("spikes", found)`: how high the loss jumps after a recovery, and how long it takes to heal; its
#   table is `sim.results.recovery_tables.spikes(found)`. `docs/figures.md` shows all kinds.
# - `churnlab timeline results/failure_rates/<run> --from 3600 --to 4000` simulates part of a run again, event by
#   event.
