"""The worker's two processes: one that holds the lease of a job, and its child, which holds torch and the engine.

    main ── docket task run_job ── runner ── handle ══ JSON lines over a socket pair ══ child ── handler

The parent never imports torch, so its event loop is always free to renew leases, to see a cancellation and to answer
Prometheus. The child knows nothing of Redis. Whatever happens to it (a segmentation fault, the kernel's out-of-memory
killer) is the end of one job, not of the worker.
"""
