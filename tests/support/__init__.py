"""Builders, scenarios and fixtures that several tests share."""
