"""The reading side of the dashboard: one version as rows to filter, sort, page and look at."""
