"""Branches: what one failure costs, measured beside the same training without it."""
