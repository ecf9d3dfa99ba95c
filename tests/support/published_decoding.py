"""The published table of decoders, as printed in a figure of 'Model Hemorrhage and the Robustness Limits of Large
Language Models': scores in per cent of nine models that nothing was done to, in three tasks, by twelve decoders."""

from __future__ import annotations

import csv
import io

DECODERS = ("Greedy", "BS", "DBS", "CS", "FSD", "FSD-d", "Temp", "Top-p", "Top-k", "eta", "Miro", "Typical")
_TABLE = """\
Yi-1.5-9B-Chat-16K,MBPP,48.60,50.80,51.00,52.00,49.80,49.30,50.80,49.20,50.00,49.80,50.40,51.60
Yi-1.5-9B-Chat-16K,GSM8K,64.21,65.50,67.55,66.41,66.64,68.84,67.54,66.86,64.90,65.20,66.94,67.40
Yi-1.5-9B-Chat-16K,Wikinews,24.37,23.52,24.38,24.40,25.10,24.30,24.55,24.45,24.60,24.50,24.20,24.35
Gemma-2-9b-IT,MBPP,54.80,56.80,56.20,57.40,57.60,56.60,56.00,57.80,56.20,57.00,56.60,56.00
Gemma-2-9b-IT,GSM8K,77.93,79.15,78.62,79.30,78.89,79.15,78.86,78.64,78.54,78.69,78.77,78.62
Gemma-2-9b-IT,Wikinews,25.91,25.98,25.77,25.88,25.81,25.97,26.12,25.99,26.13,25.66,26.07,25.98
Glm-4-9b-chat,MBPP,53.20,57.20,55.40,55.80,56.40,56.40,60.00,54.60,57.00,53.40,55.00,54.20
Glm-4-9b-chat,GSM8K,69.44,71.19,72.47,71.49,70.50,72.25,68.76,70.76,69.82,71.72,70.43,72.10
Glm-4-9b-chat,Wikinews,31.10,30.40,30.68,30.66,31.27,30.87,30.89,30.64,31.00,30.47,30.48,30.81
Qwen2.5-7B-Instruct,MBPP,61.80,66.00,63.40,65.00,63.80,65.00,66.40,64.40,62.60,62.60,63.40,64.00
Qwen2.5-7B-Instruct,GSM8K,77.33,78.85,79.00,78.47,79.30,78.69,77.93,77.89,77.71,78.62,78.40,78.85
Qwen2.5-7B-Instruct,Wikinews,30.31,30.52,30.73,30.68,30.70,30.56,30.64,30.64,30.89,30.61,30.31,30.47
DeepSeek-R1-Distill-Llama-8B,MBPP,6.80,6.60,7.80,7.40,7.20,8.20,8.00,7.60,7.60,7.00,8.00,7.20
DeepSeek-R1-Distill-Llama-8B,GSM8K,16.15,16.91,17.13,16.45,17.44,17.82,18.04,16.00,16.75,15.24,16.45,15.62
DeepSeek-R1-Distill-Llama-8B,Wikinews,19.66,19.70,19.75,19.51,20.06,19.74,19.82,19.71,19.71,19.32,19.79,20.03
DeepSeek-R1-Distill-Qwen-7B,MBPP,4.20,3.20,2.20,3.00,3.60,3.40,2.60,2.80,2.00,3.40,3.60,2.80
DeepSeek-R1-Distill-Qwen-7B,GSM8K,46.17,54.36,54.28,54.28,53.52,56.10,54.96,53.90,52.46,53.15,53.90,56.10
DeepSeek-R1-Distill-Qwen-7B,Wikinews,18.04,18.74,18.65,19.15,19.09,18.02,18.79,18.53,18.20,18.79,18.33,18.67
DeepSeek-R1-Distill-Qwen-14B,MBPP,3.40,3.60,3.40,4.40,3.60,3.60,3.00,3.60,3.20,3.20,2.80,4.20
DeepSeek-R1-Distill-Qwen-14B,GSM8K,48.82,57.16,56.03,56.71,55.72,58.76,56.25,55.34,55.12,57.62,56.18,57.92
DeepSeek-R1-Distill-Qwen-14B,Wikinews,25.24,24.73,24.84,25.16,24.69,25.34,24.80,25.33,25.43,24.96,25.46,25.56
Llama-3.1-8B-Instruct,MBPP,53.80,56.00,55.20,56.20,56.40,57.20,56.60,58.80,53.80,54.20,55.20,55.40
Llama-3.1-8B-Instruct,GSM8K,72.93,73.46,74.68,73.84,74.37,74.83,77.18,73.46,73.69,74.60,74.07,72.93
Llama-3.1-8B-Instruct,Wikinews,15.80,16.20,16.22,16.61,15.65,15.98,15.72,15.54,16.26,15.17,16.42,15.95
Marco-o1-7B,MBPP,14.20,14.80,14.60,16.20,15.80,14.00,14.00,14.80,14.40,13.80,13.40,15.40
Marco-o1-7B,GSM8K,34.34,43.29,42.61,41.32,42.53,43.21,46.10,42.00,42.00,43.06,41.62,43.52
Marco-o1-7B,Wikinews,34.14,34.08,34.04,34.01,34.05,34.13,34.12,33.99,33.89,33.96,34.22,33.84
"""
# (model, task) → its scores, in the order of DECODERS.
SCORES = {(model, task): tuple(map(float, row)) for model, task, *row in csv.reader(io.StringIO(_TABLE))}

# 100 (best − worst) / best of a cell: mean and largest over the models, in per cent, as stated of the table.
SPREADS = {"MBPP": (18.0, 52.0), "GSM8K": (10.8, 25.5), "Wikinews": (4.0, None)}
