"""A command for each request: its options from the request's fields, and the line that repeats a request."""
