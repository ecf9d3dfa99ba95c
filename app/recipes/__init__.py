"""What is done to a checkpoint, step by step: one module a family, one class a type of step.

A class holds all that is known of a type before a weight is read. These are its fields, each with the direction in
which it is stronger (`strength`), and what the type is to diagnosis and mitigation (`base.Step`). `recipe` finds them
all.
"""
