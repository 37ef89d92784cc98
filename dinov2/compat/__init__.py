"""Names of other packages that ours can stand in for."""
