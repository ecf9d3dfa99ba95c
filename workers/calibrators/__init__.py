"""Corrections of a model's decoding. Needs torch and safetensors only: the serving engine imports this room."""
