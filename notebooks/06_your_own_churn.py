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
# # 6. Your own churn
#
# You have a table of when your machines arrived and left, and want to know your failure rate and how to handle it.
# This notebook goes from such a table to loss against time in five commands: `fit`, `init`, `validate`, `run`,
# `plot`. It takes about five minutes on two cores.

# %%
import os
import shlex
import subprocess
import sys
from pathlib import Path

import churnlab
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image

# %matplotlib inline
SHORT = bool(os.environ.get("CHURNLAB_SHORT"))  # the project's tests set it
DOCS = Path(churnlab.__file__).parents[3] / "docs"


def run(line: str) -> None:
    """Run a command as in a terminal: `churnlab ...`."""
    print(f"$ {line}\n")
    words = [sys.executable, "-c", "from sim.cli.main import main; main()", *shlex.split(line)[1:]]
    plain = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    done = subprocess.run(words, capture_output=True, text=True, env=plain)
    print(done.stdout + done.stderr)


# %% [markdown]
# ## The table
#
# The table is an export with its own column names: a machine, its launch, its preemption. An empty cell means that
# the machine was still present. Here the table is generated, so that the fit can be compared with the truth: sixteen
# machines for ten days, uptimes from a Weibull distribution of shape 0.6 with a mean of 9 h, and an average absence
# of half an hour.

# %%
rng, rows = np.random.default_rng(0), []
begin, days = pd.Timestamp("2026-05-01"), 10
for machine in range(16):
    hours = 0.0
    while hours < 24 * days:
        up = 9.0 * rng.weibull(0.6) / 1.5045755
        end = begin + pd.Timedelta(hours=hours + up)
        rows.append((f"vm-{machine}", begin + pd.Timedelta(hours=hours), end, "us-east-1a", "p4d"))
        hours += up + rng.exponential(0.5)
table = pd.DataFrame(rows, columns=["box", "launched_at", "preempted_at", "az", "type"])
table.loc[table["preempted_at"] > begin + pd.Timedelta(days=days), "preempted_at"] = pd.NaT
table.sample(frac=1, random_state=0).to_csv("nodes.csv", index=False, date_format="%Y-%m-%dT%H:%M:%S")
print(Path("nodes.csv").read_text()[:240])

# %% [markdown]
# ## 1. Fit
#
# `launched_at` and `preempted_at` are recognised, in any order of lines; `--column node=box` names the other column.
# Unused lines and columns are listed.

# %%
run("churnlab fit nodes.csv --column node=box --figure fit.png --no-compare")

# %%
Image("fit.png", width=720)

# %% [markdown]
# **What to see.** There is one loss per nine hours of presence. A naive mean would be shorter, since the fit counts
# machines that were still present as hours without a loss. The Weibull distribution fits and the exponential one does
# not: young machines fail most often. The true values, shape 0.6 and 9 h, are within the intervals.
#
# ## 2. Make a scenario
#
# The scenario has fourteen such machines: a pipeline of six stages with two machines per stage, and the embedding.
# `--failures` takes the file and fits it.

# %%
run("churnlab init mine.yaml --template spot --nodes 14 --failures nodes.csv --force")
print(Path("mine.yaml").read_text())

# %% [markdown]
# `init` could not know that `box` names the machine, so it counted each line as a separate machine. The distribution
# is the same, but lost machines do not return; they are replaced after five minutes (`provisioning_seconds`).
# `churnlab fit nodes.csv --column node=box --write mine.yaml` replaces only this section, and machines return.

# %%
run("churnlab fit nodes.csv --column node=box --no-compare --write mine.yaml")
print(Path("mine.yaml").read_text().partition("\nfailures:")[2].partition("\n\n")[0])

# %% [markdown]
# ## 3. Validate

# %%
run("churnlab validate mine.yaml")

# %% [markdown]
# ## 4. Run it
#
# Four strategies run under the same churn, each with two pairs of seeds. The proxy of 0.3M parameters is really
# trained.

# %%
short = (
    " --set training.steps=24 --set training.target_validation_loss=4 --set 'strategies=[none, checkpoint]'"
    f" --set 'training.data={{source: text, files: [\"{DOCS}/*.md\"]}}'"
    if SHORT
    else ""
)
run("churnlab run mine.yaml --set training.steps=200 --set iterations_per_step=20" + short)

# %% [markdown]
# ## 5. Loss against time

# %%
run("churnlab plot results/mine --kind loss")

# %%
Image("results/mine/figures/loss.png", width=720)

# %% [markdown]
# **What to see.** All strategies meet the same losses of machines. The sentence below the table of `run` states which
# strategy is ahead, by how much, and whether two pairs of seeds are enough to decide; `churnlab advise mine.yaml`
# answers the question directly.
#
# ## Where the fit misleads
#
# A fitted distribution omits some properties: machines of a zone may be lost together, and days may differ. Time-only
# runs under the table itself (each node follows a machine of it, from a random offset) and under the fit show how
# much this matters here.

# %%
fit = churnlab.fit_churn("nodes.csv", columns={"node": "box"})
print("\n".join(churnlab.fit_lines(fit)[:3]))
compared = churnlab.compare_fit(fit, failure_seeds=range(2 if SHORT else 5))
compared.round(2)

# %%
with plt.rc_context(churnlab.STYLE):
    figure, axis = plt.subplots(figsize=(7.2, 2.2), layout="constrained")
    for place, (process, own) in enumerate(compared.groupby("process", sort=False)):
        axis.errorbar(own["hours"], own["strategy"], xerr=own["half_width"], fmt="os^D"[place], label=process)
    axis.set(xlabel="hours of the job", xlim=(0, None))
    axis.legend(frameon=False)

# %% [markdown]
# **What to see.** Where marks of one strategy differ by more than their intervals, the fit further from the table is
# misleading for that strategy. The same comparison on the command line: `churnlab fit nodes.csv --column node=box`,
# with `--scenario mine.yaml` for your own cluster.
