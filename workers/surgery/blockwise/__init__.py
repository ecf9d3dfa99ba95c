"""A model run one decoder block at a time, for steps that look at activations.

Memory holds one block's weights; the activations between blocks lie in a file that is mapped. So a model of any size
can be treated where its weights fit.
"""
