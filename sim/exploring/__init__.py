"""The page of `churnlab explore`: sliders over a scenario, seconds simulated afresh, losses predicted."""
