"""The front end: HTTP, job records, report pages, command line. Imports neither torch, transformers nor vllm."""
