"""Judging a frozen or tuned backbone on labelled pictures: data, features, probes, scores, tables."""
