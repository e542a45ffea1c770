"""Run tracking, and metrics over the eight phases."""
