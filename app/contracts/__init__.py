"""Models that cross a process border: job, recipe, text, report, event, error. Data only, no behaviour."""
