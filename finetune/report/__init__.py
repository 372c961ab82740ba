"""The report of a study: statistics, sentences, plots, and pages in HTML and Markdown."""
