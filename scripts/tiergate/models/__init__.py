"""Looks into model files without executing anything in them."""
