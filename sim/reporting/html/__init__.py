"""The HTML report of a results folder: one page with charts, tables and text, and nothing to download."""
