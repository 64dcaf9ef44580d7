"""The CheckFree paper beside ours: its published figures, the sweeps that answer to them, and docs/paper.md.

    python -m benchmarks.paper              # `make paper`: scenarios/paper -> results/paper/full, resumable
    python -m benchmarks.paper --quick      # `make paper-quick`: a tenth of it, compared with results/paper/quick

`published` holds what the paper says, `jobs` what is run, `extract` and `perplexity` what of it is kept, `kept` whether
it came again, `learning`, `answers`, `crossings` and `pictures` what it tells, `sides` and `verdicts` whether that is
what the paper says; `page` puts it into docs/paper.md, with the words of `paper.md.jinja`.
Nothing else in the program knows of this package.
"""

from __future__ import annotations
