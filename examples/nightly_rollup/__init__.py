"""Sums up each day's sales."""
