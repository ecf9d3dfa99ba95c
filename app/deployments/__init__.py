"""Deployments: what is served, its record, replicas and events in Redis, the agent that runs it, and the routes.

Workers import `store`; neither it nor what it imports needs FastAPI.
"""
