"""Jobs: their record and event stream in Redis, how they are queued, and the routes over them.

Workers import `store`, `queue`, `connection`, `workers`, `reconcile` and `embedded`; none of these imports FastAPI.
"""
