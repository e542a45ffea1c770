"""Scans Python files with semgrep, the candidate's compiler and the resolver, for one verdict."""
