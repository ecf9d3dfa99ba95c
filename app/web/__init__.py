"""Reports for people: the HTML page, the terminal's tables, and the published schema of the report itself."""
