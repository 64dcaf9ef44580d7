"""Comparison with the CheckFree paper: its published results, the sweeps that correspond to them, and docs/paper.md.

    python -m benchmarks.paper              # `make paper`: scenarios/paper -> results/paper/full, resumable
    python -m benchmarks.paper --quick      # `make paper-quick`: a tenth of it, compared with results/paper/quick
    python -m benchmarks.paper.page         # docs/paper.md from the committed numbers

`published`: the paper's numbers. `jobs`: the sweeps. `extract` and `perplexity`: the results that are kept, and their
comparison with the committed ones. `tables`: numbers derived from them. `verdicts`: whether a claim is reproduced.
`figures` and `page`: the output; `paper.md.jinja` is the text of the page.
"""

from __future__ import annotations
