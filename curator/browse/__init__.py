"""Read a version for the dashboard: filter, sort and page its rows, and show single samples."""
