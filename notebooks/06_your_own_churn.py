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
# You have a table of when your machines came and went, and want to know your failure rate, and what to do about it.
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
# Somebody's export, with names of its own: a machine, when it was launched, when it was preempted. An empty cell
# means that it was still there. Here it is drawn, so that you can see whether the truth is found again: sixteen
# machines for ten days; uptimes follow a Weibull law of shape 0.6 with a mean of 9 h, and a machine is back after
# half an hour on average.

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
# ## 1. What does it say?
#
# `launched_at` and `preempted_at` are recognised, in any order of lines; `--column node=box` names what is not.
# Nothing is left out silently: what is not used is listed.

# %%
run("churnlab fit nodes.csv --column node=box --figure fit.png --no-compare")

# %%
Image("fit.png", width=720)

# %% [markdown]
# **What to see.** A loss every nine hours of presence, not what a naive mean would say, since machines that were
# still there are counted as hours without a loss. Weibull fits and exponential does not: young machines are lost
# most. The truth, shape 0.6 and 9 h, lies within the intervals.
#
# ## 2. A scenario of it
#
# Fourteen such machines as a pipeline of six stages, two a stage, and the embedding. `--failures` takes the file
# itself and fits it.

# %%
run("churnlab init mine.yaml --template spot --nodes 14 --failures nodes.csv --force")
print(Path("mine.yaml").read_text())

# %% [markdown]
# `init` could not know that `box` names the machine, so that it took each line as a machine of its own: the law is
# the same, and lost machines do not return but are replaced, five minutes later (`provisioning_seconds`). To have
# them return, `churnlab fit nodes.csv --column node=box --write mine.yaml` replaces that one section, and nothing
# else.

# %%
run("churnlab fit nodes.csv --column node=box --no-compare --write mine.yaml")
print(Path("mine.yaml").read_text().partition("\nfailures:")[2].partition("\n\n")[0])

# %% [markdown]
# ## 3. Is it sound?

# %%
run("churnlab validate mine.yaml")

# %% [markdown]
# ## 4. Run it
#
# Four strategies under the same churn, each with two pairs of seeds. The proxy of 0.3M parameters is really trained.

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
# **What to see.** All strategies meet the same losses of machines. Who is ahead, by how much, and whether two pairs
# of seeds are enough to tell, is in the sentence below the table of `run`; `churnlab advise mine.yaml` answers the
# question directly.
#
# ## Where the fit misleads
#
# A law leaves something out: that machines of a zone may be lost together, or that days differ. Time-only runs under
# the table itself (each node follows a machine of it, from a random offset) and under what was fitted show how much
# that matters here.

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
# **What to see.** Where marks of one strategy lie apart by more than their intervals, the fit that is further from
# the table misleads for that strategy. The same from the command line: `churnlab fit nodes.csv --column node=box`,
# with `--scenario mine.yaml` for your own cluster.
