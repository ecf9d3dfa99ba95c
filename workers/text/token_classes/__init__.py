"""Kinds of token: which of the scored positions predict a number, a piece of JSON, a rare token, an answer's beginning.

One file a family. Each class is a pure function from a document's tokens, text and roles to a mask over its tokens; its
docstring is its definition, in the report and in docs/token-classes.md. A token may be in several classes.
"""
