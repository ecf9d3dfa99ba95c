"""What the models are compared on: from a text source of a request to windows of tokens.

`load_documents` reads a source, `make_windows` tokenizes and cuts. Neither knows an engine.
"""
